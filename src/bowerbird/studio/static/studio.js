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
  if (form.dataset.bringing !== undefined) wireBringing(form);
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

function wireDrawing(form) {
  const canvas = form.querySelector("canvas");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const before = [];
  const clear = () => { pen.fillStyle = "#ffffff"; pen.fillRect(0, 0, canvas.width, canvas.height); };
  clear();
  let last = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
  };
  const draw = (event) => {
    const [x, y] = at(event);
    pen.strokeStyle = form.elements.colour.value;
    pen.lineWidth = form.querySelector("[data-width]").value;
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(...last);
    pen.lineTo(x, y);
    pen.stroke();
    last = [x, y];
  };
  const remember = () => {
    before.push(pen.getImageData(0, 0, canvas.width, canvas.height));
    if (before.length > 20) before.shift();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    remember();
    last = at(event);
    draw(event);
  });
  canvas.addEventListener("pointermove", (event) => { if (last) draw(event); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
  form.querySelector("[data-clear]").addEventListener("click", () => { remember(); clear(); });
  form.querySelector("[data-undo]").addEventListener("click", () => { if (before.length) pen.putImageData(before.pop(), 0, 0); });
  form.prepare = async () => uploaded(form, await new Promise((done) => canvas.toBlob(done, "image/png")));
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

// ----------------------------------------------------------------------------------------------------------------- begin

function begin(inside) {
  all("form[data-make]", inside).forEach(wireForm);
  all("[data-tabs]", inside).forEach(wireTabs);
}

begin(document);
askAtOnce(all("form[data-auto]"));
