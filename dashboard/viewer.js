// A radiograph of 16 bits with window, zoom and heatmap, drawn from what came with the session.
// Payload: length of the header (uint32, little-endian), header as JSON, rendition as PNG.
// Loaded together with picture.js, which reads the PNG.

// Inferno (Smith and van der Walt, CC0), every 32nd colour: lightness rises evenly with the value.
const INFERNO = [
  [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85],
  [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164],
];
const GRID_PX = 256; // heatmap values are interpolated to this before they become colours

function colour(value) {
  const place = value * (INFERNO.length - 1);
  const low = Math.min(INFERNO.length - 2, Math.floor(place));
  return INFERNO[low].map((from, k) => from + (place - low) * (INFERNO[low + 1][k] - from));
}

// Below 0.1 nothing is drawn, so that what is not marked stays as sent; the legend shows the same.
function cover(value) {
  return Math.min(1, Math.max(0, (value - 0.1) / 0.4));
}

function canvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

function drawHeatmap({ rows, columns, values }) {
  const sheet = canvas(GRID_PX, GRID_PX);
  const context = sheet.getContext("2d");
  const pixels = context.createImageData(GRID_PX, GRID_PX);
  const clamp = (value, last) => Math.min(last, Math.max(0, value));
  for (let y = 0; y < GRID_PX; y++) {
    const v = clamp(((y + 0.5) / GRID_PX) * rows - 0.5, rows - 1); // cells are known at their centres
    const top = Math.floor(v), bottom = clamp(top + 1, rows - 1);
    for (let x = 0; x < GRID_PX; x++) {
      const u = clamp(((x + 0.5) / GRID_PX) * columns - 0.5, columns - 1);
      const left = Math.floor(u), right = clamp(left + 1, columns - 1);
      const across = (row) => values[row * columns + left] * (1 - u + left) + values[row * columns + right] * (u - left);
      const value = across(top) * (1 - v + top) + across(bottom) * (v - top);
      pixels.data.set([...colour(value), 255 * cover(value)], 4 * (y * GRID_PX + x));
    }
  }
  context.putImageData(pixels, 0, 0);
  return sheet;
}

function drawWindow(state) {
  const { width, height, grey } = state.image;
  const { low, high } = state.window;
  const table = new Uint8ClampedArray(65536);
  for (let value = 0; value < 65536; value++) {
    const shade = (255 * (value - low)) / (high - low);
    table[value] = state.inverted ? 255 - Math.min(255, Math.max(0, shade)) : shade;
  }
  state.sheet ??= canvas(width, height);
  state.pixels ??= new ImageData(width, height);
  const words = new Uint32Array(state.pixels.data.buffer);
  for (let i = 0; i < grey.length; i++) {
    const shade = table[grey[i]];
    words[i] = 0xff000000 | (shade << 16) | (shade << 8) | shade;
  }
  state.sheet.getContext("2d").putImageData(state.pixels, 0, 0);
  state.windowed = true;
}

function fit(state) {
  const { width, height } = state.image;
  const { width: w, height: h } = state.target;
  state.zoom = Math.min(w / width, h / height);
  state.x = (w - width * state.zoom) / 2;
  state.y = (h - height * state.zoom) / 2;
  state.fitted = true;
}

function paint(state) {
  state.frame = undefined;
  const { target } = state;
  const box = target.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(box.width * ratio), height = Math.round(box.height * ratio);
  if (!width || !height) return;
  if (target.width !== width || target.height !== height) Object.assign(target, { width, height });
  const context = target.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  if (!state.image) return;
  if (state.fitted !== false) fit(state);
  if (!state.windowed) drawWindow(state);
  const { zoom, x, y, image, header } = state;
  context.imageSmoothingEnabled = zoom < 3;
  context.imageSmoothingQuality = "high";
  context.setTransform(zoom, 0, 0, zoom, x, y);
  context.drawImage(state.sheet, 0, 0);
  if (state.overlay && state.heat) {
    // The grid's unit square to image pixels, image pixels to the rendition, that to the screen.
    const [a, b, c, d, e, f] = header.heatmap.affine;
    const sx = image.width / header.columns, sy = image.height / header.rows;
    context.transform(a * sx, d * sy, b * sx, e * sy, c * sx, f * sy);
    context.globalAlpha = state.opacity;
    context.imageSmoothingEnabled = true;
    context.drawImage(state.heat, 0, 0, 1, 1);
    context.globalAlpha = 1;
  }
  describe(state);
}

function describe(state) {
  const { part, header, overlay, heat } = state;
  const percent = (value) => Math.round(value / 655.35);
  const middle = (state.window.low + state.window.high) / 2;
  part("window").textContent =
    `Level ${percent(middle)} %  Width ${percent(state.window.high - state.window.low)} %  ` +
    `Zoom ${Math.round(100 * state.zoom)} %${state.inverted ? "  Inverted" : ""}`;
  const text = !heat ? header.no_heatmap : overlay ? header.overlay_text : "";
  part("overlay-state").textContent = text;
  part("overlay-state").classList.toggle("caution", Boolean(header.caution && overlay));
  part("overlay").setAttribute("aria-pressed", String(Boolean(overlay && heat)));
  part("overlay").disabled = !heat;
  part("scale").classList.toggle("hidden", !(overlay && heat));
  part("invert").setAttribute("aria-pressed", String(state.inverted));
  state.root.dataset.overlay = String(Boolean(overlay && heat));
  state.root.dataset.inverted = String(state.inverted);
  state.root.dataset.ready = String(header.instance_id);
}

function later(state) {
  state.frame ??= requestAnimationFrame(() => paint(state));
}

function message(state, text) {
  const place = state.part("message");
  place.textContent = text;
  place.style.display = text ? "flex" : "none";
}

async function load(state, bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const mark = JSON.stringify([header.instance_id, header.version, bytes.length]);
  if (state.mark === mark) return;
  Object.assign(state, { mark, header, image: undefined, sheet: undefined, pixels: undefined, windowed: false });
  state.part("title").textContent = header.title;
  state.part("overlay-state").textContent = state.part("window").textContent = "";
  state.root.dataset.ready = "";
  for (const button of state.root.querySelectorAll(".bar button")) button.disabled = true;
  state.part("scale").classList.add("hidden");
  later(state);
  if (header.missing) {
    message(state, header.missing);
    state.root.dataset.ready = String(header.instance_id);
    return;
  }
  message(state, "");
  let image;
  try {
    image = await readPng(bytes.subarray(4 + length));
  } catch {
    message(state, "The picture cannot be read. It can be made again: ask for the study to be reprocessed.");
    return;
  }
  if (state.mark !== mark) return; // another image was chosen meanwhile
  for (const button of state.root.querySelectorAll(".bar button")) button.disabled = false;
  Object.assign(state, {
    image,
    presets: presets(image.grey),
    inverted: false,
    fitted: true,
    heat: header.heatmap ? drawHeatmap(header.heatmap) : undefined,
    overlay: Boolean(header.heatmap && header.overlay_shown),
  });
  state.window = { ...state.presets[0] };
  paint(state);
}

const ACTIONS = {
  invert(state) {
    state.inverted = !state.inverted;
    state.windowed = false;
  },
  fit(state) {
    state.fitted = true;
  },
  overlay(state) {
    if (!state.heat) return;
    state.overlay = !state.overlay;
    if (state.overlay && !state.header.overlay_shown && state.told !== state.mark) {
      state.told = state.mark;
      state.setTriggerValue("heatmap_asked", state.header.instance_id);
    }
  },
};
const KEYS = { i: "invert", f: "fit", h: "overlay" };

function act(state, name) {
  if (!state.image) return;
  ACTIONS[name](state);
  later(state);
}

function preset(state, index) {
  if (!state.image) return;
  state.window = { ...state.presets[index] };
  state.windowed = false;
  later(state);
}

function zoomAt(state, factor, px, py) {
  const zoom = Math.min(20, Math.max(0.05, state.zoom * factor));
  state.x = px - ((px - state.x) * zoom) / state.zoom;
  state.y = py - ((py - state.y) * zoom) / state.zoom;
  Object.assign(state, { zoom, fitted: false });
  later(state);
}

function hear(state) {
  const { target, root } = state;
  const ratio = () => window.devicePixelRatio || 1;
  const press = (event) => {
    const from = event.composedPath()[0];
    const typing = from instanceof Element && from.matches("input:not([type=range]), textarea, select, [contenteditable=true]");
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing) return;
    const name = KEYS[event.key.toLowerCase()];
    if (name) act(state, name);
    else if ("1234".includes(event.key)) preset(state, Number(event.key) - 1);
    else return;
    event.preventDefault();
  };
  window.addEventListener("keydown", press, true);
  root.querySelector(".bar").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.do) act(state, button.dataset.do);
    else preset(state, Number(button.dataset.preset));
  });
  state.part("opacity").addEventListener("input", (event) => {
    state.opacity = Number(event.target.value) / 100;
    legend(state);
    later(state);
  });
  target.addEventListener("contextmenu", (event) => event.preventDefault());
  target.addEventListener("dblclick", () => act(state, "fit"));
  target.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (!state.image) return;
    zoomAt(state, Math.exp(-event.deltaY / 600), event.offsetX * ratio(), event.offsetY * ratio());
  }, { passive: false });
  target.addEventListener("pointerdown", (event) => {
    target.setPointerCapture(event.pointerId);
    state.drag = event.button === 0 && !event.shiftKey ? "window" : "pan";
  });
  target.addEventListener("pointerup", () => (state.drag = undefined));
  target.addEventListener("pointermove", (event) => {
    if (!state.drag || !state.image) return;
    const across = event.movementX, down = event.movementY;
    if (state.drag === "pan") {
      Object.assign(state, { x: state.x + across * ratio(), y: state.y + down * ratio(), fitted: false });
    } else {
      const width = Math.max(512, state.window.high - state.window.low + across * 130);
      const middle = (state.window.low + state.window.high) / 2 + down * 90;
      Object.assign(state, { window: { low: middle - width / 2, high: middle + width / 2 }, windowed: false });
    }
    later(state);
  });
  const sizes = new ResizeObserver(() => later(state));
  sizes.observe(target);
  return () => {
    window.removeEventListener("keydown", press, true);
    sizes.disconnect();
    cancelAnimationFrame(state.frame);
    state.stop = undefined;
  };
}

function legend(state) {
  const scale = state.part("scale").querySelector("canvas");
  const context = scale.getContext("2d");
  context.fillStyle = "#3c4043"; // a middle grey of the image beneath
  context.fillRect(0, 0, scale.width, scale.height);
  for (let x = 0; x < scale.width; x++) {
    const value = x / (scale.width - 1);
    context.fillStyle = `rgba(${colour(value).map(Math.round).join()},${state.opacity * cover(value)})`;
    context.fillRect(x, 0, 1, scale.height);
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".viewer");
  const state = (parentElement.firstread ??= { opacity: 0.45, inverted: false });
  Object.assign(state, {
    root,
    setTriggerValue,
    target: root.querySelector("canvas.image"),
    part: (name) => root.querySelector(`[data-testid="viewer-${name}"]`),
  });
  state.stop ??= hear(state);
  legend(state);
  load(state, data);
  return () => state.stop?.();
}
