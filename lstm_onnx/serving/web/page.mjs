// The page of `lstm-onnx serve`: one stream, with random frames.
import { openStream } from "./client.mjs";

const element = (id) => document.getElementById(id);
let stream = null;

function headers() {
  const token = element("token").value;
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function listModels() {
  element("problem").textContent = "";
  const answer = await fetch("v2/repository/index", { method: "POST", headers: headers() });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  element("model").replaceChildren(
    ...found.filter(({ state }) => state === "READY").map(({ name }) => new Option(name, name)),
  );
}

function randomFrame(layout, steps) {
  const inputs = {};
  for (const { name, datatype, shape } of layout.inputs) {
    const size = shape.reduce((product, dim) => product * (dim < 0 ? steps : dim), 1);
    if (datatype === "FP32") inputs[name] = Float32Array.from({ length: size }, () => Math.random() - 0.5);
    else if (datatype === "FP64") inputs[name] = Float64Array.from({ length: size }, () => Math.random() - 0.5);
    else if (datatype === "INT64") inputs[name] = new BigInt64Array(size);
    else if (datatype === "INT32") inputs[name] = new Int32Array(size);
    else throw new Error(`${name} has datatype ${datatype}, for which this page makes no numbers`);
  }
  return inputs;
}

function show(times, outputs) {
  const sorted = times.slice(-1000).sort((a, b) => a - b);
  element("frames").textContent = times.length;
  element("median").textContent = sorted[sorted.length >> 1].toFixed(2);
  element("slow").textContent = sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * 0.99))].toFixed(2);
  element("outputs").textContent = Object.entries(outputs)
    .map(([name, array]) => `${name}: ${Array.from(array.slice(0, 6), (value) => Number(value).toFixed(4)).join(", ")}`)
    .join("; ");
}

async function run() {
  stream = await openStream(new URL(".", location.href).href, element("model").value, { token: element("token").value });
  element("toggle").textContent = "Stop";
  const times = [];
  while (stream) {
    const frame = randomFrame(stream.layout, Number(element("steps").value));
    const began = performance.now();
    const outputs = await stream.step(frame);
    times.push(performance.now() - began);
    show(times, outputs);
    await new Promise((resolve) => setTimeout(resolve, Number(element("interval").value)));
  }
}

function stop() {
  stream?.close();
  stream = null;
  element("toggle").textContent = "Start";
}

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (stream) return stop();
  element("problem").textContent = "";
  try {
    await run();
  } catch (error) {
    if (stream) element("problem").textContent = error.message;
    else if (element("toggle").textContent === "Start") element("problem").textContent = error.message;
    stop();
  }
});

const list = () => listModels().catch((error) => (element("problem").textContent = error.message));
element("token").addEventListener("change", list);
list();
