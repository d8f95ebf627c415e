"use strict";
// Texts of the model and names of files are set by textContent alone, never as HTML.
const get = (id) => document.getElementById(id);
let model, file, found, drawing = false, wanted = null;

function add(parent, kind, text = "", properties = {}) {
  const element = Object.assign(document.createElement(kind), { textContent: text, ...properties });
  parent.append(element);
  return element;
}

function say(text, isError = false) {
  get("status").textContent = text;
  get("status").classList.toggle("error", isError);
}

async function ask(address, options) {
  const answer = await fetch(address, options);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function swatch(parent, label) {
  add(parent, "span", "", { className: "swatch" }).style.backgroundColor = `rgb(${label.color.join()})`;
}

const chosen = () => [...get("labels").querySelectorAll("input:checked")].map((box) => box.value);
const labelOf = (id) => model.labels.find((label) => label.id === id);

function showLabels() {
  for (const label of model.labels) {
    const line = add(get("labels"), "label", "", { title: label.domain });
    add(line, "input", "", { type: "checkbox", value: label.id });
    swatch(line, label);
    add(line, "span", label.name);
  }
}

async function segment() {
  if (!file) return;
  get("run").disabled = true;
  say("Segmenting ...");
  try {
    const query = new URLSearchParams({ name: file.name, labels: chosen().join() });
    found = await ask(`/segment?${query}`, { method: "POST", body: file });
    showMaps();
    get("found").hidden = false;
    await draw();
    say("");
  } catch (error) {
    get("found").hidden = true;
    say(error.message, true);
  }
  get("run").disabled = false;
}

function showMaps() {
  get("name").textContent = `${found.name}, ${found.width} x ${found.height} pixels`;
  get("maps").replaceChildren();
  for (const one of found.labels) {
    const score = one.score === null ? "" : `, ${Math.round(100 * one.score)} % by the classifier`;
    add(get("maps"), "h3", labelOf(one.id).name + score);
    const row = add(get("maps"), "div", "", { className: "row" });
    for (const [caption, address] of one.pictures) {
      const figure = add(row, "figure");
      add(figure, "img", "", { src: address, alt: `${caption} of ${labelOf(one.id).name}` });
      add(figure, "figcaption", caption);
    }
  }
}

// Of the slider's positions while a mask is on its way, the last one is drawn.
async function draw() {
  wanted = get("threshold").value;
  get("value").textContent = Number(wanted).toFixed(2);
  if (drawing) return;
  drawing = true;
  try {
    while (wanted !== null) {
      const query = new URLSearchParams({ result: found.result, threshold: wanted });
      wanted = null;
      showMask(await ask(`/mask?${query}`), query);
    }
  } catch (error) {
    say(error.message, true);
  } finally {
    drawing = false;
  }
}

function showMask(mask, query) {
  get("overlay").src = mask.overlay;
  get("shares").replaceChildren();
  for (const { id } of found.labels) {
    const share = add(get("shares"), "span", "", { className: "share" });
    swatch(share, labelOf(id));
    add(share, "span", `${labelOf(id).name} ${(100 * mask.shares[id]).toFixed(1)} %`);
  }
  get("save").href = `/mask.png?${query}`;
  get("save").download = `${found.name.replace(/\.[^.]*$/, "")}-mask.png`;
}

function take(files) {
  if (!files.length) return;
  file = files[0];
  segment();
}

async function start() {
  try {
    model = await ask("/model");
  } catch (error) {
    return say(error.message, true);
  }
  document.title = get("title").textContent = model.name;
  get("hint").textContent = model.predicts
    ? `None chosen: the classifier predicts them. At most ${model.max_labels} at once.`
    : `This model has no classifier: choose labels, at most ${model.max_labels} at once.`;
  showLabels();
  get("run").disabled = false;
}

get("file").addEventListener("change", (event) => take(event.target.files));
get("run").addEventListener("click", segment);
get("threshold").addEventListener("input", () => found && draw());
get("filter").addEventListener("input", (event) => {
  const text = event.target.value.toLowerCase();
  for (const line of get("labels").children) line.hidden = !line.textContent.toLowerCase().includes(text);
});
// Anywhere on the page: a browser leaves it for a file that is dropped beside the field.
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    get("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
start();
