// Draws the map: dots or thumbnails, names of groups, and a card for the image under the pointer.
// Without this file, the lists of groups and outliers still show everything important.
"use strict";

const panel = document.getElementById("map");
const canvas = document.getElementById("plane");
const brush = canvas.getContext("2d");
const peek = document.getElementById("peek");
const peekCanvas = peek.querySelector("canvas");
const link = peek.querySelector("a");
const said = document.getElementById("said");
const data = JSON.parse(document.getElementById("data").textContent);
const pictures = document.getElementById("pictures");
const groupButtons = Array.from(document.querySelectorAll("button[data-group]"));

function numbers(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new Kind(bytes.buffer);
}

const count = data.count;
const places = numbers(data.xy, Uint16Array);
const groups = numbers(data.groups, Uint8Array);
const tileOf = numbers(data.tile_of, Int32Array);
const sizes = numbers(data.tile_sizes, Uint8Array);
const copies = numbers(data.copies, Uint32Array);
const folderOf = numbers(data.folder_of, Int32Array);
const pointOf = new Int32Array(sizes.length / 2);
tileOf.forEach((tile, point) => { if (tile >= 0) pointOf[tile] = point; });
const sheets = data.sheets.map((address) => {
  const image = new Image();
  image.onload = later;
  image.src = address;
  return image;
});

const MANY = 8000;  // with more visible points, they are drawn as a cloud
let width = 1, height = 1, ratio = 1;
let view = { x: 0.5, y: 0.5, zoom: 1 };  // the middle of the window, in the plane
let chosen = 0;       // the number of the highlighted group; 0: all
let under = -1;       // the point whose card is shown
let pinned = false;   // whether the card stays when the pointer leaves the point
let colours = {};
let waiting = false;

function later() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function readColours() {
  const style = getComputedStyle(panel);
  const named = (name) => style.getPropertyValue(name).trim();
  colours = { card: named("--card"), ink: named("--ink"), line: named("--edge"),
              accent: named("--accent"), groups: [] };
  for (let number = 1; number <= 16; number++) colours.groups.push(named(`--group-${number}`));
  colours.parts = colours.groups.map((colour) => (
    [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16))
  ));
}

// The plane fills the window; one direction is stretched up to twice as much as the other. In a
// high window, the plane is turned by a quarter.
const extent = [0, 1].map((axis) => {
  let low = 1, high = 0;
  for (let point = 0; point < count; point++) {
    const value = places[2 * point + axis] / 65535;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return Math.max(high - low, 0.05);
});
let turned = false, scaleX = 1, scaleY = 1;

function fit() {
  turned = height > width && extent[0] > extent[1];
  const [wide, high] = turned ? [extent[1], extent[0]] : extent;
  const x = width * 0.88 / wide, y = (height - 110) / high;
  scaleX = Math.min(x, 2 * y);
  scaleY = Math.min(y, 2 * x);
}

const across = (x, y) => ((turned ? y : x) - view.x) * scaleX * view.zoom + width / 2;
const down = (x, y) => (view.y - (turned ? 1 - x : y)) * scaleY * view.zoom + height / 2 + 14;
const atX = (point) => across(places[2 * point] / 65535, places[2 * point + 1] / 65535);
const atY = (point) => down(places[2 * point] / 65535, places[2 * point + 1] / 65535);

function inside(x, y, edge) {
  return x > -edge && y > -edge && x < width + edge && y < height + edge;
}

function radius() {
  const base = count < 300 ? 6 : count < 3000 ? 3.6 : count < 20000 ? 2.2 : 1.3;
  return Math.min(9, base * Math.pow(view.zoom, 0.35));
}

function draw() {
  brush.setTransform(ratio, 0, 0, ratio, 0, 0);
  brush.clearRect(0, 0, width, height);
  drawDots();
  const labels = placeNames();
  if (pictures.getAttribute("aria-pressed") === "true") drawThumbnails(labels);
  drawNames(labels);
  if (under >= 0) ring(under);
}

function drawDots() {
  const size = radius();
  const visible = [];
  for (let point = 0; point < count; point++) {
    if (inside(atX(point), atY(point), size)) visible.push(point);
  }
  if (visible.length > MANY) drawCloud(visible, size);
  else drawDiscs(visible, size);
}

function drawDiscs(visible, size) {
  const paths = colours.groups.map(() => new Path2D());
  for (const point of visible) {
    const x = atX(point), y = atY(point);
    const path = paths[(groups[point] - 1) % paths.length];
    path.moveTo(x + size, y);
    path.arc(x, y, size, 0, 7);
  }
  paths.forEach((path, number) => {
    brush.globalAlpha = chosen && number + 1 !== chosen ? 0.13 : 0.88;
    brush.fillStyle = colours.groups[number];
    brush.fill(path);
    if (size >= 3 && visible.length <= 3000) {
      brush.strokeStyle = colours.card;
      brush.lineWidth = 1;
      brush.stroke(path);
    }
  });
  brush.globalAlpha = 1;
}

// Tens of thousands of paths are slow to draw, and hide how dense the points are. Instead, each
// point raises the opacity of a few pixels.
function drawCloud(visible, size) {
  const image = brush.createImageData(canvas.width, canvas.height);
  const pixels = image.data;
  const edge = Math.max(1, Math.round(2 * size * ratio));
  const share = Math.min(0.6, Math.max(0.25, 25000 / visible.length));
  for (const point of visible) {
    const colour = colours.parts[(groups[point] - 1) % colours.parts.length];
    const most = chosen && groups[point] !== chosen ? 40 : 255;
    const left = Math.round(atX(point) * ratio - edge / 2);
    const top = Math.round(atY(point) * ratio - edge / 2);
    const right = Math.min(left + edge, image.width), bottom = Math.min(top + edge, image.height);
    for (let y = Math.max(top, 0); y < bottom; y++) {
      for (let x = Math.max(left, 0); x < right; x++) {
        const at = 4 * (y * image.width + x);
        pixels[at] = colour[0];
        pixels[at + 1] = colour[1];
        pixels[at + 2] = colour[2];
        if (pixels[at + 3] < most) pixels[at + 3] += (most - pixels[at + 3]) * share;
      }
    }
  }
  brush.putImageData(image, 0, 0);
}

const meet = (one, other) => (
  one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3]
);

// As many thumbnails as have room, the typical images first.
function drawThumbnails(labels) {
  const edge = width < 560 ? 40 : count <= 600 ? 66 : 54;
  const taken = labels.map((label) => label.box);
  for (let tile = 0; tile < pointOf.length && taken.length < 500; tile++) {
    const point = pointOf[tile];
    const x = atX(point), y = atY(point);
    if (!inside(x, y, edge) || (chosen && groups[point] !== chosen)) continue;
    const [w, h] = fitted(tile, edge - 4);
    const box = [x - w / 2 - 3, y - h / 2 - 3, x + w / 2 + 3, y + h / 2 + 3];
    if (taken.some((other) => meet(box, other))) continue;
    taken.push(box);
    brush.fillStyle = colours.groups[(groups[point] - 1) % colours.groups.length];
    brush.fillRect(x - w / 2 - 2, y - h / 2 - 2, w + 4, h + 4);
    place(brush, tile, x - w / 2, y - h / 2, w, h);
  }
}

function fitted(tile, edge) {
  const scale = edge / Math.max(sizes[2 * tile], sizes[2 * tile + 1]);
  return [sizes[2 * tile] * scale, sizes[2 * tile + 1] * scale];
}

function place(target, tile, x, y, w, h) {
  const each = data.columns * data.columns;
  const sheet = sheets[Math.floor(tile / each)];
  if (!sheet.complete || !sheet.naturalWidth) return;
  const left = (tile % data.columns) * data.tile;
  const top = Math.floor((tile % each) / data.columns) * data.tile;
  target.drawImage(sheet, left, top, sizes[2 * tile], sizes[2 * tile + 1], x, y, w, h);
}

// Names that have room, those of the largest groups first.
function placeNames() {
  const size = width < 560 ? 11.5 : 13;
  brush.font = `650 ${size}px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif`;
  const placed = [];
  for (const group of data.names) {
    if (chosen && group.number !== chosen) continue;
    const lines = wrapped(group.name || `Group ${group.number}`, width < 560 ? 15 : 24);
    const w = Math.max(...lines.map((line) => brush.measureText(line).width)) + 8;
    const h = lines.length * size * 1.2 + 4;
    const middle = { x: across(group.x, group.y), y: down(group.x, group.y) };
    if (!inside(middle.x, middle.y, 0)) continue;
    const x = Math.min(Math.max(middle.x, w / 2), width - w / 2);
    const y = Math.min(Math.max(middle.y, h / 2), height - h / 2);
    const box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2];
    if (placed.some((other) => meet(box, other.box))) continue;
    placed.push({ x, y, lines, box, size });
  }
  return placed;
}

function drawNames(labels) {
  brush.textAlign = "center";
  brush.textBaseline = "middle";
  brush.lineJoin = "round";
  brush.lineWidth = 5;
  brush.strokeStyle = colours.card;
  brush.fillStyle = colours.ink;
  for (const { x, y, lines, size } of labels) {
    const at = (number) => y + (number - (lines.length - 1) / 2) * size * 1.2;
    lines.forEach((line, number) => brush.strokeText(line, x, at(number)));
    lines.forEach((line, number) => brush.fillText(line, x, at(number)));
  }
}

// At most two lines.
function wrapped(text, length) {
  const letters = Array.from(text);
  if (letters.length <= length) return [text];
  const space = letters.lastIndexOf(" ", length);
  const cut = space > length / 3 ? space : length;
  const rest = letters.slice(cut).join("").trim();
  const second = Array.from(rest);
  return [letters.slice(0, cut).join("").trim(),
          second.length > length ? second.slice(0, length - 1).join("").trim() + "…" : rest];
}

function ring(point) {
  brush.strokeStyle = colours.accent;
  brush.lineWidth = 2.5;
  brush.beginPath();
  brush.arc(atX(point), atY(point), radius() + 4, 0, 7);
  brush.stroke();
}

function nearest(x, y, reach) {
  let best = -1, least = reach * reach;
  for (let point = 0; point < count; point++) {
    if (chosen && groups[point] !== chosen) continue;
    const dx = atX(point) - x, dy = atY(point) - y;
    const distance = dx * dx + dy * dy;
    if (distance < least) { least = distance; best = point; }
  }
  return best;
}

function show(point, keep = false) {
  pinned = keep && point >= 0;
  peek.classList.toggle("pinned", pinned);
  if (point === under) return;
  under = point;
  peek.hidden = point < 0;
  if (point >= 0) {
    fill(point);
    const x = atX(point), y = atY(point);
    const w = peek.offsetWidth, h = peek.offsetHeight;
    const left = x + 18 + w <= width ? x + 18 : x - 18 - w;
    peek.style.left = `${Math.max(4, Math.min(left, width - w - 4))}px`;
    peek.style.top = `${Math.max(4, Math.min(y - h / 2, height - h - 4))}px`;
  }
  later();
}

function fill(point) {
  const tile = tileOf[point];
  peekCanvas.hidden = tile < 0;
  if (tile >= 0) {
    const [w, h] = fitted(tile, 190);
    peekCanvas.width = w * ratio;
    peekCanvas.height = h * ratio;
    peekCanvas.style.width = `${w}px`;
    peekCanvas.style.height = `${h}px`;
    const target = peekCanvas.getContext("2d");
    place(target, tile, 0, 0, w * ratio, h * ratio);
  }
  const part = (name, text) => {
    const element = peek.querySelector(name);
    element.textContent = text || "";
    element.hidden = !text;
  };
  link.textContent = data.files[point];
  if (folderOf[point] < 0) link.removeAttribute("href");
  else link.href = data.folders[folderOf[point]] + data.links[point];
  part(".caption", data.captions[point]);
  part(".more", copiesText(point));
  part(".where", data.locations ? data.locations[point] : "");
  part(".id", data.ids[point]);
}

function copiesText(point) {
  const more = copies[point];
  return more ? `${more.toLocaleString("en")} exact ${more === 1 ? "copy" : "copies"}` : "";
}

// Opens the card of a point as if it were selected with the pointer; screen readers read its text.
function select(point) {
  const x = atX(point), y = atY(point), edge = 30;
  if (x < edge || y < edge || x > width - edge || y > height - edge) {
    view.x += (x - width / 2) / scaleX / view.zoom;
    view.y -= (y - height / 2) / scaleY / view.zoom;
  }
  show(-1);
  show(point, true);
  const name = (data.names.find((group) => group.number === groups[point]) || {}).name;
  said.textContent = [data.files[point], data.captions[point], copiesText(point),
                      name ? `in the group ${name}` : ""]
    .filter(Boolean).map((text) => text.replace(/\.$/, "")).join(". ");
}

// Selects the next point in a direction on the screen.
function step(right, below) {
  if (under < 0) return select(nearest(width / 2, height / 2, Infinity));
  const x = atX(under), y = atY(under), least = Math.max(6, radius());
  let best = -1, cost = Infinity;
  for (let point = 0; point < count; point++) {
    if (point === under || (chosen && groups[point] !== chosen)) continue;
    const dx = atX(point) - x, dy = atY(point) - y;
    const ahead = dx * right + dy * below, aside = Math.abs(dx * below) + Math.abs(dy * right);
    if (ahead < least || aside > ahead || ahead + 2 * aside >= cost) continue;
    best = point;
    cost = ahead + 2 * aside;
  }
  if (best >= 0) select(best);
}

function move(dx, dy) {
  view.x = Math.min(1.2, Math.max(-0.2, view.x - dx / scaleX / view.zoom));
  view.y = Math.min(1.2, Math.max(-0.2, view.y + dy / scaleY / view.zoom));
  unpin();
  later();
}

function zoom(factor, x = width / 2, y = height / 2) {
  const bounded = Math.min(60, Math.max(1, view.zoom * factor)) / view.zoom;
  const shift = (1 - 1 / bounded);
  view.x += (x - width / 2) / scaleX / view.zoom * shift;
  view.y -= (y - height / 2) / scaleY / view.zoom * shift;
  view.zoom *= bounded;
  if (view.zoom === 1) view = { x: 0.5, y: 0.5, zoom: 1 };
  // While the whole map is visible, one finger scrolls the page.
  canvas.style.touchAction = view.zoom === 1 ? "pan-y" : "none";
  unpin();
  later();
}

// Zooms around the selected point, and keeps its card open.
function zoomByKey(factor) {
  if (!pinned) return zoom(factor);
  const point = under;
  zoom(factor, atX(point), atY(point));
  select(point);
}

function unpin() {
  show(-1);
}

function showAll() {
  zoom(1 / view.zoom);
}

function choose(number) {
  chosen = chosen === number ? 0 : number;
  groupButtons.forEach((button) => {
    button.setAttribute("aria-pressed", String(Number(button.dataset.group) === chosen));
  });
  unpin();
  later();
}

function resize() {
  ratio = window.devicePixelRatio || 1;
  width = canvas.clientWidth;
  height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  fit();
  later();
}

const held = new Map();  // pointers that are down
let moved = 0;

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  held.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
  moved = 0;
});
canvas.addEventListener("pointermove", (event) => {
  const before = held.get(event.pointerId);
  const now = { x: event.offsetX, y: event.offsetY };
  if (!before) {
    if (!pinned) show(nearest(now.x, now.y, Math.max(14, radius() + 4)));
    return;
  }
  held.set(event.pointerId, now);
  moved += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
  if (moved < 5) return;
  if (held.size === 2) {
    const [other] = Array.from(held).filter(([id]) => id !== event.pointerId);
    const apart = (one) => Math.hypot(one.x - other[1].x, one.y - other[1].y);
    if (apart(before) > 0) zoom(apart(now) / apart(before), (now.x + other[1].x) / 2, (now.y + other[1].y) / 2);
  } else move(now.x - before.x, now.y - before.y);
});
function release(event) {
  if (held.delete(event.pointerId) && moved < 5 && event.type === "pointerup") {
    show(nearest(event.offsetX, event.offsetY, 22), true);
  }
}
canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
canvas.addEventListener("pointerleave", () => { if (!pinned && !held.size) show(-1); });
// Until the map is selected, the wheel scrolls the page.
canvas.addEventListener("wheel", (event) => {
  if (document.activeElement !== canvas && !event.ctrlKey) return;
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * 0.0015), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("dblclick", (event) => zoom(2, event.offsetX, event.offsetY));
canvas.addEventListener("keydown", (event) => {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const arrow = arrows[event.key];
  if (arrow && event.shiftKey) move(-60 * arrow[0], -60 * arrow[1]);
  else if (arrow) step(...arrow);
  else if (event.key === "+" || event.key === "=") zoomByKey(1.5);
  else if (event.key === "-") zoomByKey(1 / 1.5);
  else if (event.key === "Enter" && link.href && pinned) link.click();
  else return;
  event.preventDefault();
});
panel.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  leave();
  canvas.focus();
});

// Closes the card; if none is open, shows the whole map.
function leave() {
  if (pinned) return unpin();
  if (chosen) choose(chosen);
  showAll();
}

document.getElementById("closer").addEventListener("click", () => zoom(1.7));
document.getElementById("farther").addEventListener("click", () => zoom(1 / 1.7));
document.getElementById("whole").addEventListener("click", showAll);
pictures.addEventListener("click", () => {
  pictures.setAttribute("aria-pressed", String(pictures.getAttribute("aria-pressed") !== "true"));
  later();
});
groupButtons.forEach((button) => {
  button.addEventListener("click", () => choose(Number(button.dataset.group)));
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); later(); });
new ResizeObserver(resize).observe(canvas);
panel.classList.add("ready");
readColours();
resize();
