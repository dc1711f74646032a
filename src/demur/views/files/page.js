"use strict";
// Shows the scenes of the JSON block. Data reaches the document as text nodes and plain attributes, never as markup.
(() => {
  const { states, pieces, about, scenes } = JSON.parse(document.getElementById("data").textContent);
  const total = Math.max(...scenes.map((scene) => scene.frames.length));
  const by = (id) => document.getElementById(id);
  const SVG = document.querySelector("svg").namespaceURI;

  function set(node, attributes) {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }
  function make(tag, attributes = {}, ...children) {
    const node = set(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  }
  function draw(tag, attributes = {}, ...children) {
    const node = set(document.createElementNS(SVG, tag), attributes);
    node.append(...children);
    return node;
  }

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const number = (value) => value.toFixed(2);
  const level = (value) => String(Number(value.toFixed(3)));
  function zone(value, [low, high]) {
    if (value < low) return "refusal";
    return value > high ? "compliance" : "transition";
  }

  /** Moves sorted places apart until neighbours are `gap` apart, all within [low, high]. */
  function spread(places, gap, low, high) {
    const moved = [...places];
    for (let i = 0; i < moved.length; i++) moved[i] = Math.max(moved[i], i ? moved[i - 1] + gap : low);
    for (let i = moved.length - 1; i >= 0; i--)
      moved[i] = Math.min(moved[i], i < moved.length - 1 ? moved[i + 1] - gap : high);
    return moved;
  }

  // ---- The canvas of tokens

  // Control, direction and zero-width characters, which would hide or reorder text. Joiners stay: scripts need them.
  const HIDDEN = "\\u0000-\\u001f\\u007f-\\u009f\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff";
  const PARTS = new RegExp(`\\r?\\n|[${HIDDEN}]|[^${HIDDEN}]+`, "g");
  const SHOWN = new RegExp(`[^${HIDDEN}]`);

  const sign = (text) => make("span", { class: "sign", "aria-hidden": "true" }, text);
  const point = (part) => `U+${part.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

  /** Makes a cell show a text: nothing for open ones, signs for what has no shape, the text itself otherwise. */
  function write(node, text, state) {
    node.className = `cell ${state}`;
    node.removeAttribute("title");
    node.replaceChildren();
    if (state === "open") return;
    const blank = /^ +$/.test(text);
    const lead = blank ? "" : text.match(/^ */)[0]; // the space before a word is not highlighted
    const ink = make("span", { class: blank ? "ink blank" : "ink" });
    for (const part of text.slice(lead.length).match(PARTS) ?? []) {
      if (part === "\t") ink.append(sign("⇥"), part);
      else if (part.endsWith("\n")) ink.append(sign("↵"), "\n");
      else if (SHOWN.test(part)) ink.append(part);
      else ink.append(sign(point(part)));
    }
    if (text === "") ink.append(sign("∅"));
    node.append(lead, ink);
  }

  /** How many cells of a row, before the open ones at its end, repeat the text of the first of them, and where. */
  function repeated(row) {
    let end = row.length;
    while (end && states[row[end - 1] % states.length] === "open") end--;
    const text = (i) => Math.floor(row[i] / states.length);
    let begin = end;
    while (begin && text(begin - 1) === text(end - 1)) begin--;
    return end - begin < 3 ? [end, end] : [begin, end];
  }

  function tokens(scene) {
    const box = make("div", { class: "canvas", role: "group" });
    const shown = [];
    const read = (code) => [pieces[Math.floor(code / states.length)], states[code % states.length]];
    function show(k) {
      const row = scene.frames[k];
      // A diffusion model fills what follows its answer with ends: one is shown, and their number.
      const [begin, end] = repeated(row);
      row.forEach((code, i) => {
        const fold = i > begin && i < end ? (i === begin + 1 ? end - begin : 1) : 0;
        const look = fold ? `${code} ${fold}` : code;
        if (shown[i] === look) return;
        if (i === box.childElementCount) box.append(make("span"));
        const node = box.children[i];
        write(node, ...read(code));
        if (fold) node.classList.add("folded");
        if (fold > 1) node.append(make("span", { class: "times" }, `×${fold}`));
        shown[i] = look;
      });
      while (box.childElementCount > row.length) box.lastElementChild.remove();
      shown.length = row.length;
      box.setAttribute("aria-label", `Response at step ${k + 1}`);
    }
    /** Gives the canvas the height of its tallest frame, so that nothing jumps while it plays. */
    function settle(k) {
      box.style.minHeight = "";
      const frames = scene.frames.length;
      const looks = clamp(Math.floor(12000 / (scene.frames[frames - 1].length + 1)), 2, frames);
      let height = 0;
      for (let i = 0; i < looks; i++) {
        show(Math.round((i * (frames - 1)) / Math.max(1, looks - 1)));
        height = Math.max(height, box.offsetHeight);
      }
      box.style.minHeight = `${height}px`;
      show(k);
    }
    box.addEventListener("pointerover", (event) => {
      const node = event.target.closest(".cell");
      if (!node || node.title) return;
      const place = [...box.children].indexOf(node);
      const [text, state] = read(Number.parseInt(shown[place]));
      node.title = `place ${place + 1}, ${state}${state === "open" ? "" : `: ${JSON.stringify(text)}`}`;
    });
    return { box, show, settle };
  }

  // ---- The sigma curve

  const LEFT = 38;
  const RIGHT = 88;
  const TOP = 8;
  const PLOT = 190;
  const LANE = { y: TOP + PLOT + 12, height: 10 };
  const HEIGHT = LANE.y + LANE.height + 24;
  const DASHES = ["6 4", "2 3", "9 3 2 3", "12 5"];

  function curve(scene, index) {
    const { sigma, zones, references, bands, refused } = scene;
    const [low, high] = zones;
    const steps = sigma.length;
    const svg = draw("svg", { class: "curve", role: "img", height: HEIGHT });
    const y = (value) => TOP + (1 - value) * PLOT;
    // A reference has the colour of the zone in which it ends, and dashes of its own.
    const look = (values, i) => ({
      class: `reference ${zone(values.at(-1), zones)}`,
      "stroke-dasharray": DASHES[i % DASHES.length],
    });
    const shade = (lower) => ({ class: `spread ${zone(lower.at(-1), zones)}` });
    let width = 0;
    let moving = {};
    let x = () => 0;

    const path = (values, last) =>
      values
        .slice(0, last + 1)
        .map((value, k) => `${k ? "L" : "M"}${x(k).toFixed(1)} ${y(value).toFixed(1)}`)
        .join("") + (steps === 1 ? "m-8 0h16" : last === 0 ? "h.01" : "");

    /** The area between two curves; a single step gets the width of its column. */
    const area = (lower, upper) => {
      const half = steps === 1 ? 8 : 0;
      const points = [...upper.keys()].map((k) => [x(k) - half, y(upper[k])]);
      const back = [...lower.keys()].reverse().map((k) => [x(k) + half, y(lower[k])]);
      const corner = half ? [[x(0) + half, y(upper[0])], ...back, [x(0) - half, y(lower[0])]] : back;
      const all = [...points, ...corner];
      return `M${all.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}Z`;
    };

    function frame() {
      const right = width - RIGHT;
      const stop = (name, value) => draw("stop", { class: name, offset: clamp(1 - value, 0, 1) });
      svg.append(
        draw(
          "linearGradient",
          { id: `ink${index}`, gradientUnits: "userSpaceOnUse", x1: 0, x2: 0, y1: y(1), y2: y(0) },
          stop("compliance", 1),
          stop("compliance", high),
          stop("transition", high),
          stop("transition", low),
          stop("refusal", low),
          stop("refusal", 0),
        ),
      );
      const bands = [
        ["compliance", 1, high],
        ["transition", high, low],
        ["refusal", low, 0],
      ].filter(([, upper, lower]) => upper > lower);
      const names = spread(
        bands.map(([, upper, lower]) => y((upper + lower) / 2)),
        15,
        y(1) + 6,
        y(0) - 6,
      );
      bands.forEach(([name, upper, lower], i) => {
        svg.append(
          draw("rect", { class: `band ${name}`, x: LEFT, y: y(upper), width: right - LEFT, height: y(lower) - y(upper) }),
          draw("text", { class: `name ${name}`, x: right + 10, y: names[i] + 4 }, name),
        );
      });
      const ticks = [...new Set([1, high, low, 0])];
      spread(ticks.map(y), 13, y(1), y(0)).forEach((place, i) => {
        svg.append(draw("text", { x: LEFT - 8, y: place + 4, "text-anchor": "end" }, level(ticks[i])));
      });
      for (const value of ticks)
        svg.append(draw("line", { class: "border", x1: LEFT, x2: right, y1: y(value), y2: y(value) }));
    }

    function axis() {
      const right = width - RIGHT;
      const room = (right - LEFT) / total;
      const pace = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000].find((n) => n * room >= 38) ?? total;
      const marked = [1];
      for (let k = pace; k < total; k += pace) if (k > 1 && (k - 1) * room >= 24) marked.push(k);
      while (marked.length > 1 && (total - marked.at(-1)) * room < 30) marked.pop();
      if (total > 1) marked.push(total);
      for (const k of marked)
        svg.append(draw("text", { x: x(k - 1), y: HEIGHT - 5, "text-anchor": "middle" }, String(k)));
      svg.append(draw("text", { x: LEFT - 8, y: HEIGHT - 5, "text-anchor": "end" }, "step"));
    }

    function lane() {
      const right = width - RIGHT;
      const room = (right - LEFT) / total;
      const gap = room > 6 ? 1.5 : 0;
      svg.append(draw("rect", { class: "lane", x: LEFT, y: LANE.y, width: room * steps, height: LANE.height, rx: 2 }));
      for (let k = 0; k < steps; k++) {
        if (!refused[k]) continue;
        let end = k + 1;
        if (!gap) while (end < steps && refused[end]) end++;
        svg.append(
          draw("rect", {
            class: "mark",
            x: (LEFT + k * room + gap / 2).toFixed(2),
            y: LANE.y,
            width: ((end - k) * room - gap).toFixed(2),
            height: LANE.height,
            rx: gap ? 1.5 : 0,
          }),
        );
        k = end - 1;
      }
      svg.append(draw("text", { x: right + 10, y: LANE.y + LANE.height - 1 }, "text refuses"));
    }

    function redraw() {
      const right = width - RIGHT;
      const room = (right - LEFT) / total;
      x = (k) => LEFT + (k + 0.5) * room;
      svg.replaceChildren();
      svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      frame();
      axis();
      lane();
      bands.forEach(([, lower, upper]) => svg.append(draw("path", { ...shade(lower), d: area(lower, upper) })));
      references.forEach(([, values], i) => {
        svg.append(draw("path", { ...look(values, i), d: path(values, steps - 1) }));
      });
      svg.append(draw("path", { class: "all", d: path(sigma, steps - 1) }));
      if (steps < total) {
        const end = LEFT + steps * room;
        svg.append(
          draw("rect", { class: "over", x: end, y: TOP, width: right - end, height: PLOT }),
          draw("line", { class: "hold", x1: x(steps - 1), x2: right, y1: y(sigma.at(-1)), y2: y(sigma.at(-1)) }),
        );
        if (right - end > 48) svg.append(draw("text", { x: end + 6, y: LANE.y + LANE.height - 1 }, "ended"));
      }
      moving = {
        veil: draw("rect", { class: "veil", y: LANE.y - 1, height: LANE.height + 2 }),
        cursor: draw("line", { class: "cursor", y1: TOP, y2: LANE.y + LANE.height }),
        past: draw("path", { class: "past", stroke: `url(#ink${index})` }),
        point: draw("circle", { r: 6 }),
      };
      svg.append(...Object.values(moving));
    }

    function show(step) {
      const k = Math.min(step, steps - 1);
      const name = zone(sigma[k], zones);
      const extreme = (value) => `${number(value)} at step ${sigma.indexOf(value) + 1}`;
      svg.setAttribute(
        "aria-label",
        `Sigma of ${scene.title} over ${steps} steps. At step ${k + 1}: ${number(sigma[k])}, ${name} zone. ` +
          `Highest ${extreme(Math.max(...sigma))}, lowest ${extreme(Math.min(...sigma))}.`,
      );
      if (!width) return;
      const room = (width - RIGHT - LEFT) / total;
      const edge = LEFT + (k + 1) * room;
      set(moving.veil, { x: edge, width: Math.max(0, LEFT + steps * room - edge) });
      set(moving.cursor, { x1: x(step), x2: x(step) });
      set(moving.past, { d: path(sigma, k) });
      set(moving.point, { class: `point ${name}`, cx: x(step), cy: y(sigma[k]) });
    }

    function resize(step) {
      width = Math.floor(svg.parentElement.clientWidth);
      redraw();
      show(step);
    }

    function seek(event) {
      const place = event.clientX - svg.getBoundingClientRect().left - LEFT;
      move(Math.floor((place / (width - RIGHT - LEFT)) * total));
    }
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      svg.setPointerCapture(event.pointerId);
      seek(event);
    });
    svg.addEventListener("pointermove", (event) => {
      if (svg.hasPointerCapture(event.pointerId)) seek(event);
    });

    const key = make("ul", { class: "curves", "aria-label": "Curves" });
    const line = (attributes) =>
      draw("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" }, draw("path", { d: "M2 4H26", ...attributes }));
    const patch = (attributes) =>
      draw("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" }, draw("path", { d: "M2 0H26V8H2Z", ...attributes }));
    if (references.length || bands.length) {
      key.append(make("li", {}, line({ class: "own" }), "this generation"));
      references.forEach(([name, values], i) => {
        key.append(make("li", {}, line(look(values, i)), make("span", { dir: "auto" }, name)));
      });
      bands.forEach(([name, lower]) => {
        key.append(make("li", {}, patch(shade(lower)), make("span", { dir: "auto" }, name)));
      });
    }
    return { svg, key, show, resize };
  }

  /** Every number of the curve as a table, closed until it is asked for. */
  function numbers(scene) {
    const { sigma, zones, references, bands, refused, title } = scene;
    const edges = bands.flatMap(([name]) => [`${name}, from`, `${name}, to`]);
    const heads = ["step", "sigma", "zone", "text refuses", ...references.map(([name]) => name), ...edges];
    const rows = sigma.map((value, k) => {
      const sides = bands.flatMap(([, lower, upper]) => [number(lower[k]), number(upper[k])]);
      const others = [...references.map(([, values]) => number(values[k])), ...sides];
      const texts = [number(value), zone(value, zones), refused[k] ? "yes" : "no", ...others];
      return make("tr", {}, make("th", { scope: "row" }, String(k + 1)), ...texts.map((text) => make("td", {}, text)));
    });
    const table = make(
      "table",
      {},
      make("caption", { class: "unseen" }, `Sigma of ${title} at every step`),
      make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...rows),
    );
    const region = { class: "numbers", tabindex: "0", role: "group", "aria-label": `Sigma of ${title} as a table` };
    const box = make("details", {}, make("summary", {}, "Sigma as a table"), make("div", region, table));
    let here = null;
    const show = (k) => {
      here?.classList.remove("here");
      here = rows[k];
      here.classList.add("here");
    };
    return { box, show };
  }

  // ---- A scene

  /** What was asked: prompt, the beginning of the answer that it gave, why words are hidden. */
  function asked(scene) {
    const texts = [["Prompt", scene.prompt || "(empty)"]];
    if (scene.opening) texts.push(["The answer was begun with", scene.opening]);
    const parts = texts.map(([name, text]) =>
      make("div", { class: "prompt" }, make("p", { class: "label" }, name), make("p", { class: "words", dir: "auto" }, text)),
    );
    if (scene.hint) parts.push(make("p", { class: "hint" }, scene.hint));
    return parts;
  }
  /** A long text scrolls, and is then reached by keyboard. */
  function reachable(box, title) {
    for (const words of box.querySelectorAll(":scope > .prompt > .words"))
      if (words.scrollHeight > words.clientHeight + 1)
        set(words, { tabindex: "0", role: "group", "aria-label": `${words.previousSibling.textContent} of ${title}` });
  }
  function listed(notes) {
    const items = notes.map((text) => make("li", {}, make("b", {}, "Note"), text));
    return notes.length ? [make("ul", { class: "notes", "aria-label": "Notes" }, ...items)] : [];
  }
  function heading(level, id, title, redacted) {
    const box = make("div", { class: "heading" }, make(level, { id, dir: "auto" }, title));
    if (redacted)
      box.append(make("span", { class: "badge", title: "Words were taken out before this page was made" }, "redacted"));
    return box;
  }

  /** One generation. `together`: it stands under a request's heading, which tells what they share. */
  function view(scene, index, together) {
    const steps = scene.frames.length;
    const last = (step) => Math.min(step, steps - 1);
    const name = `scene${index}`;

    const head = make(
      "div",
      { class: "head" },
      together ? heading("h3", name, scene.way || scene.title, false) : heading("h2", name, scene.title, scene.redacted),
    );
    const made = [scene.model, scene.sampler].filter(Boolean);
    if (made.length) head.append(make("p", { class: "made" }, ...made.map((text) => make("span", {}, text))));
    head.append(...listed(scene.notes));
    if (!together) head.append(...asked(scene));

    const value = make("span", { class: "value" });
    const chip = make("span", { class: "chip" });
    const said = make("span", { class: "said" });
    const now = make("div", { class: "now" });
    const plot = make("div", { class: "plot" }, now);
    const line = scene.sigma ? curve(scene, index) : null;
    if (line) {
      now.append(value, chip);
      plot.append(line.svg, line.key);
    } else
      now.replaceWith(
        make(
          "p",
          { class: "bare" },
          make("b", {}, "No anchors for this model and sampler, so there is no sigma to draw. "),
          "Make them with ",
          make("code", {}, "demur anchors fit"),
          ".",
        ),
      );

    const canvas = tokens(scene);
    const response = make(
      "div",
      { class: "response" },
      make("div", { class: "heading" }, make("p", { class: "label" }, "Response"), said),
      canvas.box,
    );

    const end = make("div", { class: "end" });
    const verdict = make("p", { class: "verdict" }, make("b", {}, "Verdict"), scene.verdict || "none");
    if (scene.verdict && !together) end.append(verdict);
    const table = scene.sigma ? numbers(scene) : null;
    if (table) end.append(table.box);

    const box = make("article", { class: "scene", "aria-labelledby": name }, head, plot, response, end);
    if (together) head.after(verdict); // one row of them under a request

    function words(step) {
      return [step >= steps ? `ended at step ${steps}` : "", scene.refused[last(step)] ? "reads as a refusal" : ""];
    }
    function show(step) {
      const k = last(step);
      canvas.show(k);
      said.textContent = words(step).filter(Boolean).join(" · ");
      said.classList.toggle("refusing", Boolean(scene.refused[k]));
      if (!line) return;
      const where = zone(scene.sigma[k], scene.zones);
      value.replaceChildren(make("i", {}, "σ"), number(scene.sigma[k]));
      chip.className = `chip ${where}`;
      chip.textContent = where;
      line.show(step);
      table.show(k);
    }
    function tell(step) {
      const k = last(step);
      const sigma = scene.sigma
        ? `sigma ${number(scene.sigma[k])}, ${zone(scene.sigma[k], scene.zones)} zone`
        : "no sigma";
      return (scenes.length > 1 ? `${scene.title}: ` : "") + [sigma, ...words(step)].filter(Boolean).join(", ");
    }
    let width = 0;
    function resize(step) {
      if (plot.clientWidth === width) return;
      width = plot.clientWidth;
      line?.resize(step);
      canvas.settle(last(step));
      reachable(head, scene.title);
    }
    return { box, plot, show, tell, resize };
  }

  // ---- The player: one step for all scenes

  // A note that every scene has is told once, on top; one that a whole request has, under its heading.
  const common = (some) => some[0].notes.filter((note) => some.every((one) => one.notes.includes(note)));
  const without = (notes) => (scene) => ({ ...scene, notes: scene.notes.filter((note) => !notes.includes(note)) });
  const told = scenes.length > 1 ? common(scenes) : [];
  const all = scenes.map((scene, i) => ({ ...scene, title: scene.title || `Scene ${i + 1}` })).map(without(told));
  const groups = [];
  for (const scene of all) {
    const before = groups.at(-1)?.at(-1);
    const alike = ["request", "prompt", "opening"].every((name) => before?.[name] === scene[name]);
    if (scene.request && alike) groups.at(-1).push(scene);
    else groups.push([scene]);
  }
  const views = [];
  function viewed(scene, together) {
    views.push(view(scene, views.length, together));
    return views.at(-1).box;
  }
  function grouped(group, number) {
    if (!group[0].request) return viewed(group[0], false);
    const shared = group.length > 1 ? common(group) : [];
    const ways = group.map(without(shared)).map((scene) => viewed(scene, true));
    const id = `request${number}`;
    const hidden = group.some((scene) => scene.redacted);
    const head = make("div", { class: "head" }, heading("h2", id, group[0].request, hidden), ...asked(group[0]), ...listed(shared));
    new ResizeObserver(() => reachable(head, group[0].request)).observe(head);
    return make("article", { class: "request", "aria-labelledby": id }, head, make("div", { class: "ways" }, ...ways));
  }
  const boxes = groups.map(grouped);
  const play = by("play");
  const scrub = by("scrub");
  let step = total - 1;
  let timer = 0;
  let telling = 0;

  function show() {
    for (const one of views) one.show(step);
    scrub.value = step + 1;
    scrub.setAttribute("aria-valuetext", `step ${step + 1} of ${total}`);
    by("count").textContent = `step ${step + 1} of ${total}`;
  }
  function tell() {
    clearTimeout(telling);
    telling = setTimeout(() => {
      by("status").textContent = `Step ${step + 1} of ${total}. ${views.map((one) => `${one.tell(step)}.`).join(" ")}`;
    }, 150);
  }
  function pause() {
    clearTimeout(timer);
    timer = 0;
    document.body.classList.remove("playing");
    play.lastElementChild.textContent = "Play";
  }
  function move(to) {
    pause();
    step = clamp(to, 0, total - 1);
    show();
    tell();
  }
  function tick() {
    timer = setTimeout(() => {
      step += 1;
      show();
      if (step < total - 1) tick();
      else {
        pause();
        tell();
      }
    }, 1000 / Number(by("speed").value));
  }
  function toggle() {
    if (timer) {
      pause();
      tell();
      return;
    }
    if (total < 2) return;
    if (step === total - 1) {
      step = 0;
      show();
    }
    document.body.classList.add("playing");
    play.lastElementChild.textContent = "Pause";
    tick();
  }

  play.addEventListener("click", toggle);
  play.disabled = total < 2;
  scrub.max = total;
  scrub.addEventListener("input", () => move(Number(scrub.value) - 1));
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest("select")) return;
    const moves = { ArrowLeft: step - 1, ArrowRight: step + 1, Home: 0, End: total - 1 };
    if (event.key in moves) move(moves[event.key]);
    else if (event.key === " " && !event.target.closest("button, summary")) {
      if (!event.repeat) toggle();
    } else return;
    event.preventDefault();
  });

  // ---- Theme: the reader's system until the button is pressed

  const dark = by("dark");
  const prefers = matchMedia("(prefers-color-scheme: dark)");
  let forced = null;
  const isDark = () => forced ?? prefers.matches;
  function offer() {
    const other = isDark() ? "Light" : "Dark";
    by("theme").lastElementChild.textContent = other;
    by("theme").setAttribute("aria-label", `${other} theme`);
  }
  by("theme").addEventListener("click", () => {
    forced = !isDark();
    dark.media = forced ? "screen" : "not all";
    offer();
  });
  prefers.addEventListener("change", offer);

  // ---- Begin

  for (const id of ["player", "guide", "about"]) by(id).hidden = false;
  by("sigma").hidden = scenes.every((scene) => !scene.sigma);
  by("about").append(...about.map((text) => make("p", { dir: "auto" }, text)), ...listed(told));
  by("scenes").classList.toggle("single", scenes.length === 1);
  by("scenes").append(...boxes);
  offer();
  show();

  let waiting = 0;
  const watch = new ResizeObserver(() => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => views.forEach((one) => one.resize(step)));
  });
  for (const one of views) {
    one.resize(step);
    watch.observe(one.plot);
  }

  // In a notebook the frame takes the height of the page.
  if (document.body.classList.contains("embedded")) {
    let frame = null;
    try {
      frame = window.frameElement;
    } catch {
      // An outer page that lets nobody look keeps the height it gave.
    }
    if (frame) {
      document.documentElement.classList.add("fitted");
      new ResizeObserver(() => {
        frame.style.height = `${Math.ceil(document.body.getBoundingClientRect().height) + 2}px`;
      }).observe(document.body);
    }
  }
})();
