// Draws strokes, sends them to the server while they are drawn, and shows the prediction that it returns.
"use strict";

const PEN_WIDTH = 22; // of 280: about as wide as MNIST's strokes after scaling
const KEY_STEP = 10;
const KEY_START = { x: 140, y: 60, down: false };
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const drawing = document.getElementById("drawing");
const context = drawing.getContext("2d", { willReadFrequently: true });
const pen = document.getElementById("pen"); // the keyboard's
const label = document.getElementById("label");
const seen = document.getElementById("seen").getContext("2d");
let bars = [];
let unsureBelow = 0;
let shown = null; // the prediction
let stroke = null; // the end of the pointer's stroke
let keyPen = KEY_START;
let empty = true;
let changed = false; // since the last request
let busy = false;

context.lineWidth = PEN_WIDTH;
context.lineCap = context.lineJoin = "round";

function line(from, to) {
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(to.x, to.y);
  context.stroke();
  empty = false;
  changed = true;
  predict();
}

function position(event) {
  const box = drawing.getBoundingClientRect();
  const scale = drawing.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

drawing.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return; // a second finger draws nothing
  drawing.setPointerCapture(event.pointerId);
  stroke = position(event);
  line(stroke, stroke);
});
drawing.addEventListener("pointermove", (event) => {
  if (!stroke || !event.isPrimary) return;
  const steps = event.getCoalescedEvents?.() ?? [];
  for (const step of steps.length ? steps : [event]) {
    const next = position(step);
    line(stroke, next);
    stroke = next;
  }
});
for (const end of ["pointerup", "pointercancel"]) drawing.addEventListener(end, () => (stroke = null));

function moveKeyPen(next) {
  if (next.down) line(keyPen, next);
  keyPen = next;
  pen.style.left = `${(100 * next.x) / drawing.width}%`;
  pen.style.top = `${(100 * next.y) / drawing.height}%`;
  pen.classList.toggle("down", next.down);
}

drawing.addEventListener("keydown", (event) => {
  const { x, y, down } = keyPen;
  if (event.key === " ") {
    moveKeyPen({ x, y, down: !down });
  } else if (event.key in MOVES) {
    const [dx, dy] = MOVES[event.key];
    const inside = (value) => Math.min(drawing.width - KEY_STEP, Math.max(KEY_STEP, value));
    moveKeyPen({ x: inside(x + KEY_STEP * dx), y: inside(y + KEY_STEP * dy), down });
  } else {
    return;
  }
  event.preventDefault();
});

function clear() {
  context.clearRect(0, 0, drawing.width, drawing.height);
  stroke = null;
  moveKeyPen(KEY_START);
  empty = true;
  changed = false;
  show(null);
}
document.getElementById("clear").addEventListener("click", clear);
document.addEventListener("keydown", (event) => event.key === "Escape" && clear());

async function predict() {
  if (busy || !changed) return;
  busy = true;
  changed = false;
  const { data } = context.getImageData(0, 0, drawing.width, drawing.height);
  const body = Uint8Array.from({ length: data.length / 4 }, (_, pixel) => data[4 * pixel + 3]);
  try {
    const reply = await fetch("digit", {
      method: "POST", headers: { "Content-Type": "application/octet-stream" }, body,
    });
    if (!reply.ok) throw new Error(reply.statusText);
    const result = await reply.json();
    if (!empty) show(result.label === null ? null : result);
  } catch {
    show(null);
    label.textContent = "no reply";
  }
  busy = false;
  predict();
}

function show(result) {
  shown = result;
  const image = seen.createImageData(28, 28);
  (result?.pixels ?? new Array(784).fill(0)).forEach((grey, pixel) => image.data.set([grey, grey, grey, 255], 4 * pixel));
  seen.putImageData(image, 0, 0);
  label.textContent = result?.label ?? "…";
  document.getElementById("unsure").hidden = !result || Math.max(...result.probabilities) >= unsureBelow;
  bars.forEach(({ row, bar, value }, index) => {
    const probability = result?.probabilities[index] ?? 0;
    bar.style.width = `${100 * probability}%`;
    value.textContent = result ? `${(100 * probability).toFixed(1)} %` : "";
    row.classList.toggle("top", result !== null && probability === Math.max(...result.probabilities));
  });
}

async function start() {
  const network = await (await fetch("network")).json();
  document.getElementById("network").textContent = network.checkpoint;
  unsureBelow = network.unsure_below;
  if (!network.class_names.every((name) => /^\d$/.test(name))) {
    document.title = document.querySelector("h1").textContent = "Draw";
  }
  const longest = Math.max(...network.class_names.map((name) => name.length));
  document.getElementById("bars").style.setProperty("--name-length", longest);
  bars = network.class_names.map((name) => {
    const row = document.createElement("li");
    const [name_label, track, bar, value] = ["label", "track", "bar", "value"].map((kind) => {
      const part = document.createElement(kind === "track" || kind === "bar" ? "div" : "span");
      part.className = kind;
      return part;
    });
    name_label.textContent = name;
    track.append(bar);
    row.append(name_label, track, value);
    document.getElementById("bars").append(row);
    return { row, bar, value };
  });
  show(shown); // something may have been drawn before the reply came
}

clear();
start();
