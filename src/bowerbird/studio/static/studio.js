// The studio's script: forms that answer in place, drawing, live curves.  No framework, nothing from elsewhere.
"use strict";

const words = JSON.parse(document.body.dataset.words);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

function sentence(text) {
  const said = document.createElement("p");
  said.className = "error";
  said.setAttribute("role", "alert");
  said.textContent = text;
  return said;
}

// Posts to the studio; throws an Error whose message is a sentence for people.
async function post(address, body, kind = "application/json") {
  let answer;
  try {
    answer = await fetch(address, { method: "POST", headers: { "Content-Type": kind }, body });
  } catch {
    throw new Error(words.failed);
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let said = text;
  try { said = JSON.parse(text).error; } catch { /* a sentence as it is */ }
  throw new Error(answer.status === 413 ? words.too_large : said);
}

// ------------------------------------------------------------------------------------------ forms that answer in place

function valuesOf(form) {
  const values = {};
  for (const one of form.elements) {
    if (!one.name || one.dataset.own !== undefined || one.disabled) continue;
    if (one.type === "radio" && !one.checked) continue;
    values[one.name] = one.type === "checkbox" ? one.checked : one.value;
  }
  return values;
}

async function answer(form) {
  const into = document.getElementById(form.dataset.into);
  const busy = [...form.querySelectorAll("button:not([type=button])")];
  const turn = (form.turn = (form.turn ?? 0) + 1);
  into.setAttribute("aria-busy", "true");
  busy.forEach((button) => { button.disabled = true; });
  try {
    if (form.prepare) await form.prepare();
    const text = await (await post(form.getAttribute("action"), JSON.stringify(valuesOf(form)))).text();
    if (turn === form.turn) show(into, text, form);
  } catch (error) {
    if (turn === form.turn) into.replaceChildren(sentence(error.message));
  } finally {
    if (turn === form.turn) into.removeAttribute("aria-busy");
    busy.forEach((button) => { button.disabled = false; });
  }
}

// What the server rendered; its buttons belong to the form that asked.
function show(into, html, form) {
  into.innerHTML = html;
  begin(into);
  for (const button of all("[data-again]", into)) {
    if (form.dataset.fresh !== undefined) button.remove();
    else button.addEventListener("click", () => another(form));
  }
}

function another(form) {
  const seed = form.querySelector("[data-seed]");
  if (seed) seed.value = Math.floor(Math.random() * 1e6);
  answer(form);
}

function wireForm(form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (form.dataset.fresh !== undefined && form.asked) another(form); else answer(form);
    form.asked = true;
  });
  for (const one of all("[data-submits]", form)) one.addEventListener("change", () => answer(form));
  if (form.dataset.drawing !== undefined) wireDrawing(form);
  if (form.dataset.brush !== undefined) wireBrush(form);
  if (form.dataset.bringing !== undefined) wireBringing(form);
  if (form.dataset.zip !== undefined) wireZip(form);
}

// One after the other, so that the first card is not kept waiting by the last.
async function askAtOnce(forms) {
  for (const form of forms) { form.asked = true; await answer(form); }
}

async function uploaded(form, blob) {
  const named = await (await post("/pictures", blob, "application/octet-stream")).json();
  form.querySelector("[data-picture]").value = named.name;
}

function wireBringing(form) {
  form.prepare = () => uploaded(form, form.querySelector("input[type=file]").files[0]);
}

// --------------------------------------------------------------------------------------------------------------- drawing

// Calls stroke(from, to) as a pointer moves over a canvas, and begin() before the first.
function wireStrokes(canvas, begin, stroke) {
  let last = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
  };
  const draw = (event) => { const next = at(event); stroke(last, next); last = next; };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    begin();
    last = at(event);
    draw(event);
  });
  canvas.addEventListener("pointermove", (event) => { if (last) draw(event); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
}

function line(pen, [from, to], colour, width) {
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(...to);
  pen.stroke();
}

const pngOf = (canvas) => new Promise((done) => canvas.toBlob(done, "image/png"));

function wireDrawing(form) {
  const canvas = form.querySelector("canvas");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const before = [];
  const clear = () => { pen.fillStyle = "#ffffff"; pen.fillRect(0, 0, canvas.width, canvas.height); };
  clear();
  const remember = () => {
    before.push(pen.getImageData(0, 0, canvas.width, canvas.height));
    if (before.length > 20) before.shift();
  };
  wireStrokes(canvas, remember, (...ends) => {
    line(pen, ends, form.elements.colour.value, form.querySelector("[data-width]").value);
  });
  form.querySelector("[data-clear]").addEventListener("click", () => { remember(); clear(); });
  form.querySelector("[data-undo]").addEventListener("click", () => { if (before.length) pen.putImageData(before.pop(), 0, 0); });
  form.prepare = async () => uploaded(form, await pngOf(canvas));
}

// A picture under a brush: what is painted is white on a mask that is as large as the canvas.
function wireBrush(form) {
  const canvas = form.querySelector("canvas");
  const mask = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  const [pen, hidden, picture] = [canvas.getContext("2d"), mask.getContext("2d"), new Image()];
  const part = (name) => form.querySelector(`[data-${name}]`);
  const show = () => {
    const side = Math.min(picture.naturalWidth / canvas.width, picture.naturalHeight / canvas.height);
    const [width, height] = [side * canvas.width, side * canvas.height];
    const [left, top] = [(picture.naturalWidth - width) / 2, (picture.naturalHeight - height) / 2];
    pen.imageSmoothingEnabled = width > canvas.width / 2;
    pen.globalCompositeOperation = "source-over";
    pen.drawImage(picture, left, top, width, height, 0, 0, canvas.width, canvas.height);
    hidden.fillStyle = "#000000";
    hidden.fillRect(0, 0, mask.width, mask.height);
  };
  const cover = (paint) => {
    for (const [one, colour] of [[hidden, "#ffffff"], [pen, "#e8a13a"]]) paint(one, colour);
  };
  const choose = (name, address) => { picture.name = name; picture.src = address; };
  picture.addEventListener("load", () => { part("name").value = picture.name; show(); });
  wireStrokes(canvas, () => {}, (...ends) => cover((one, colour) => line(one, ends, colour, part("width").value)));
  part("clear").addEventListener("click", show);
  part("half").addEventListener("click", () => cover((one, colour) => {
    one.fillStyle = colour;
    one.fillRect(0, canvas.height / 2, canvas.width, canvas.height / 2);
  }));
  for (const pick of all("[data-pick]", form)) {
    pick.addEventListener("change", () => choose(pick.value, pick.parentElement.querySelector("img").src));
  }
  part("bring").addEventListener("change", async (event) => {
    try {
      const brought = await (await post("/pictures", event.target.files[0], "application/octet-stream")).json();
      choose(brought.name, brought.url);
    } catch (error) {
      document.getElementById(form.dataset.into).replaceChildren(sentence(error.message));
    }
  });
  form.prepare = async () => uploaded(form, await pngOf(mask));
  choose(part("name").value, form.querySelector("[data-pick]:checked + img").src);
}

// ------------------------------------------------------------------------------------------------------------------ tabs

function wireTabs(tabs) {
  const buttons = all("[role=tab]", tabs);
  const choose = (chosen) => {
    for (const button of buttons) {
      const on = button === chosen;
      button.setAttribute("aria-selected", on);
      button.tabIndex = on ? 0 : -1;
      document.getElementById(button.getAttribute("aria-controls")).hidden = !on;
    }
  };
  buttons.forEach((button, i) => {
    button.addEventListener("click", () => choose(button));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = buttons[(i + step + buttons.length) % buttons.length];
      choose(next);
      next.focus();
    });
  });
}

// ------------------------------------------------------------------------------------------------- what is live on a run

const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes, text) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  return one;
}

const short = (value) => Math.abs(value) >= 1e4 ? `${+(value / 1e3).toPrecision(3)}k` : `${+value.toPrecision(3)}`;

// One panel: axes with a few labels, a line for each series.
function curve(panel) {
  const [width, height, left, below] = [400, 200, 44, 22];
  const scale = panel.log ? Math.log10 : (value) => value;
  const xs = panel.series.flatMap((one) => one.x);
  const ys = panel.series.flatMap((one) => one.y).filter((y) => Number.isFinite(y) && (!panel.log || y > 0)).map(scale);
  const sorted = [...ys].sort((a, b) => a - b);
  const cut = sorted.length >= 50 ? Math.floor(sorted.length / 100) : 0;
  let [low, high] = [sorted[cut], sorted[sorted.length - 1 - cut]];
  const room = 0.08 * (high - low) || Math.abs(high) * 0.1 || 1;
  low -= room; high += room;
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const px = (x) => left + (width - left - 6) * (x - first) / (last - first || 1);
  const py = (y) => 8 + (height - below - 8) * Math.min(1, Math.max(0, (high - y) / (high - low)));
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": panel.title });
  for (let i = 0; i <= 3; i++) {
    const y = low + (high - low) * i / 3;
    svg.append(drawn("line", { class: "grid", x1: left, x2: width, y1: py(y), y2: py(y) }));
    svg.append(drawn("text", { x: left - 8, y: py(y) + 4, "text-anchor": "end" }, short(panel.log ? 10 ** y : y)));
  }
  for (const [x, anchor] of [[first, "start"], [last, "end"]]) {
    svg.append(drawn("text", { x: px(x), y: height - 4, "text-anchor": anchor }, `${words.step} ${short(x)}`));
  }
  panel.series.forEach((one, i) => {
    const points = one.x.map((x, k) => [x, one.y[k]]).filter(([, y]) => Number.isFinite(y) && (!panel.log || y > 0));
    const line = points.map(([x, y], k) => `${k ? "L" : "M"}${px(x).toFixed(1)} ${py(scale(y)).toFixed(1)}`).join("");
    svg.append(drawn("path", { d: line, class: `s${(one.colour ?? panel.colour + i) % 6}` }));
  });
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = panel.title;
  figure.append(caption, svg);
  return figure;
}

// A slider over what was seen earlier; it stays at the newest unless it was moved.
class Times {
  constructor(label, showing) {
    [this.label, this.showing, this.seen] = [label, showing, []];
    this.input = label.querySelector("input");
    this.output = label.querySelector("output");
    this.input.addEventListener("input", () => this.show(+this.input.value));
  }

  add(step, what) {
    const followed = +this.input.value >= this.seen.length - 1;
    this.seen.push({ step, what });
    this.input.max = this.seen.length - 1;
    this.label.hidden = this.seen.length < 2;
    if (followed) this.show(this.seen.length - 1);
  }

  show(i) {
    this.input.value = i;
    this.output.textContent = `${words.step} ${this.seen[i].step.toLocaleString()}`;
    this.showing(this.seen[i].what);
  }
}

function wireLive(section) {
  const part = (name, inside = document) => inside.querySelector(`[data-${name}]`);
  const sharpening = document.querySelector("form[data-sharpening]");
  const before = sharpening && new Times(part("times"), (html) => { document.getElementById("sharpening").innerHTML = html; });
  const previews = new Times(part("steps"), showPreview);
  const buttons = all("[data-act]", section);
  let [weights, known, waiting] = [0, 0, null];

  function showPreview(one) {
    const shown = document.createElement(one.text === undefined ? "img" : "pre");
    if (one.text === undefined) { shown.src = one.address; shown.alt = ""; } else shown.textContent = one.text;
    part("preview").replaceChildren(shown);
  }

  async function sharpen(step) {
    try {
      const text = await (await post(sharpening.getAttribute("action"), JSON.stringify(valuesOf(sharpening)))).text();
      before.add(step, text);
    } catch (error) {
      document.getElementById("sharpening").replaceChildren(sentence(error.message));
    }
  }

  async function show(now) {
    const state = part("state", section);
    state.textContent = now.state_text;
    state.className = `state ${now.state}`;
    part("spent", section).textContent = now.spent;
    part("left", section).textContent = now.left;
    part("used", section).value = now.used;
    const said = part("sentence", section);
    said.textContent = now.sentence;
    said.hidden = !now.sentence;
    for (const button of buttons) {
      button.hidden = !button.dataset.when.split(" ").includes(now.state);
      button.disabled = false;
    }
    part("curves-part").hidden = !now.panels.length;
    part("curves").replaceChildren(...now.panels.map(curve));
    part("previews-part").hidden = !now.previews.length;
    for (; known < now.previews.length; known++) previews.add(now.previews[known].step, now.previews[known]);
    part("findings-part").hidden = !now.findings.length;
    part("findings").replaceChildren(...now.findings.map((one) => {
      const item = document.createElement("li");
      const title = document.createElement("strong");
      title.textContent = one.title;
      item.append(title, ` ${one.text}`);
      return item;
    }));
    if (sharpening && now.weights && now.weights !== weights) {
      weights = now.weights;
      await sharpen(now.weights_step);
    }
  }

  async function look() {
    clearTimeout(waiting);
    let moving = true;
    try {
      const answer = await fetch(section.dataset.live);
      if (answer.status === 404) throw new Error(words.gone);
      if (!answer.ok) throw new Error(words.failed);
      const now = await answer.json();
      await show(now);
      moving = ["starting", "training", "stopping", "elsewhere"].includes(now.state);
    } catch (error) {
      const said = part("sentence", section);
      said.textContent = error.message === "Failed to fetch" ? words.failed : error.message;
      said.hidden = false;
      moving = error.message !== words.gone;
      if (!moving) buttons.forEach((button) => { button.hidden = true; });
    }
    waiting = setTimeout(look, moving ? 1500 : 15000);
  }

  for (const button of buttons) {
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await post(button.dataset.act, JSON.stringify({ for_good: button.dataset.forGood !== undefined }));
      } catch (error) {
        const said = part("sentence", section);
        said.textContent = error.message;
        said.hidden = false;
      }
      await look();
    });
  }
  show(JSON.parse(section.dataset.standing)).then(look);
}

// ----------------------------------------------------------------------------------------------------------- playground

// A picture to start from: one of those that were held out, or a file.
function wireSource(source) {
  const form = source.closest("form");
  const name = source.querySelector("[data-picture]");
  const file = source.querySelector("[data-bring]");
  for (const pick of all("[data-pick]", source)) {
    pick.addEventListener("change", () => { name.value = pick.value; file.value = ""; answer(form); });
  }
  file.addEventListener("change", () => { form.prepare = file.files[0] ? () => uploaded(source, file.files[0]) : null; });
}

function wireFilm(button) {
  const form = button.closest("form");
  button.addEventListener("click", async () => {
    const into = document.getElementById(form.dataset.into);
    button.disabled = true;
    into.setAttribute("aria-busy", "true");
    try {
      if (form.prepare) await form.prepare();
      into.innerHTML = await (await post(button.dataset.film, JSON.stringify(valuesOf(form)))).text();
      begin(into);
    } catch (error) {
      into.replaceChildren(sentence(error.message));
    }
    into.removeAttribute("aria-busy");
    button.disabled = false;
  });
}

// What the labels of a result say, below it.
function wireVerify(button) {
  button.addEventListener("click", async () => {
    const said = document.createElement("div");
    try {
      said.innerHTML = await (await post(button.dataset.verify, "{}")).text();
    } catch (error) {
      said.append(sentence(error.message));
    }
    button.closest(".under").after(said);
    button.disabled = true;
  });
}

// Frames lie below one another in one picture.
function playFilm(film) {
  const [strip, canvas, slider] = ["img", "canvas", "input"].map((one) => film.querySelector(one));
  const [frames, output, button] = [+film.dataset.frames, film.querySelector("output"), film.querySelector("[data-play]")];
  const pen = canvas.getContext("2d");
  let playing = null;
  const show = (i) => {
    slider.value = i;
    output.textContent = `${words.step} ${i + 1} / ${frames}`;
    pen.drawImage(strip, 0, i * canvas.height, canvas.width, canvas.height, 0, 0, canvas.width, canvas.height);
  };
  const stop = () => { clearInterval(playing); playing = null; };
  const play = () => {
    stop();
    let i = 0;
    playing = setInterval(() => { show(i); i += 1; if (i >= frames) stop(); }, Math.max(60, 2400 / frames));
  };
  slider.addEventListener("input", () => { stop(); show(+slider.value); });
  button.addEventListener("click", play);
  const ready = () => (matchMedia("(prefers-reduced-motion: reduce)").matches ? show(frames - 1) : play());
  if (strip.complete && strip.naturalWidth) ready(); else strip.addEventListener("load", ready);
}

// Sliders ask as they move, one request at a time.
function wireSliders(form) {
  let [asking, again] = [false, false];
  const ask = async () => {
    if (asking) { again = true; return; }
    asking = true;
    await answer(form);
    asking = false;
    if (again) { again = false; ask(); }
  };
  for (const slider of all("[data-slides]", form)) slider.addEventListener("input", ask);
}

function wireTalk(talk) {
  const [lines, form, said] = [talk.querySelector("[data-lines]"), talk.querySelector("form"), []];
  const line = (kind, text) => {
    const one = document.createElement("p");
    one.className = kind;
    one.textContent = text;
    lines.append(one);
    return one;
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [input, button] = [form.elements.words, form.querySelector("button")];
    said.push(input.value);
    line("mine", input.value);
    input.value = "";
    button.disabled = true;
    const answered = line("theirs", "");
    try {
      const reader = (await post(talk.dataset.talk, JSON.stringify({ said, seed: said.length }))).body.getReader();
      const decoder = new TextDecoder();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        answered.textContent += decoder.decode(part.value, { stream: true });
      }
      said.push(answered.textContent);
    } catch (error) {
      said.pop();
      answered.replaceWith(sentence(error.message));
    }
    button.disabled = false;
    input.focus();
  });
}

// ------------------------------------------------------------------------------------------------------------------ code

function wireCode(form) {
  const area = form.querySelector("textarea");
  form.querySelector("[data-example]").addEventListener("click", async (event) => {
    area.value = await (await fetch(event.target.dataset.example)).text();
  });
  form.querySelector("[data-text]").addEventListener("change", async (event) => {
    if (event.target.files[0]) area.value = await event.target.files[0].text();
  });
}

// Forms that lead to another page.
function wireGoing(form) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      location.href = (await (await post(form.getAttribute("action"), JSON.stringify(valuesOf(form)))).json()).go;
    } catch (error) {
      document.getElementById(form.dataset.into).replaceChildren(sentence(error.message));
      button.disabled = false;
    }
  });
}

function wireZip(form) {
  form.prepare = async () => {
    const file = form.querySelector("input[type=file]").files[0];
    const named = await (await post("/train/upload", file, "application/zip")).json();
    form.querySelector("[data-picture]").value = named.name;
  };
}

// ----------------------------------------------------------------------------------------------------------------- begin

function begin(inside) {
  all("form[data-make]", inside).forEach(wireForm);
  all("form[data-go]", inside).forEach(wireGoing);
  all("[data-tabs]", inside).forEach(wireTabs);
  all("[data-source]", inside).forEach(wireSource);
  all("[data-verify]", inside).forEach(wireVerify);
  all("[data-film]", inside).forEach(wireFilm);
  all(".film", inside).forEach(playFilm);
  all("[data-latents]", inside).forEach(wireSliders);
  all("[data-talk]", inside).forEach(wireTalk);
  all("form.code", inside).forEach(wireCode);
  for (const one of all("[data-panels]", inside)) one.replaceChildren(...JSON.parse(one.dataset.panels).map(curve));
  all("[data-live]", inside).forEach(wireLive);
}

begin(document);
askAtOnce(all("form[data-auto]"));
