// The operator's page. It receives pictures and states on one websocket, and sends requests and
// acknowledgments (docs/console.md). Text is only ever set as textContent, so that nothing received
// becomes HTML.

const $ = (id) => document.getElementById(id);
const canvas = $("picture"), pen = canvas.getContext("2d");
const STATES = { 1: "Tracking", 2: "Uncertain", 3: "Lost" };
const LOST = 3;
// Distinguishable with every kind of color vision, and bright enough for any picture.
const COLORS = ["#19c3ff", "#ffb000", "#ff6fb5", "#7dff5a", "#c4a0ff", "#fff04d", "#ff8a4c", "#5cffe0"];
const FINE = matchMedia("(pointer: fine)").matches; // a mouse, and so a keyboard
const HINT = `Drag a box around a target, or tap it.${
  FINE ? " By keyboard: go to the picture with Tab and press Enter." : ""}`;
const HELD = FINE ? "The picture is held while you draw. Let go to start, Esc cancels."
  : "Let go to start. A second finger cancels.";
const KEYS = "Arrows move the box, Shift+arrows size it. Enter starts, P takes its center, Esc cancels.";
const TAP = 8; // CSS pixels by which a finger may move in a tap
const MINUTE = 60_000;
const GONE = 1_000; // milliseconds without a target after which it is no longer listed
const SILENCE = 5_000; // milliseconds after which the link is lost: a state comes every second

let socket, retry, tries = 0, heardAt = 0, wasLost = false;
let announced = null; // the description of the picture that is arriving, and when it came
let newest = null, shown = null; // {described, bitmap}; they differ while the picture is held
let newestWatched = "", newestNumber = 0;
// What is being drawn: {box, by: "keys"} or {box, by: "pointer", from, at}. box and from (where the
// pointer went down) in image pixels, at in CSS pixels.
let selection = null;
let asked = null; // a box that the node has not answered yet
let again = ""; // the target that is being selected again
let calls = 0;
const pending = new Map(); // what to do when a call is answered
const colors = new Map(); // of the targets, by id
const samples = []; // of the last minute
const arrivals = []; // of pictures, in the last two seconds

// The connection

let token = decodeURIComponent(location.hash.slice(1)) || sessionStorage.getItem("token") || "";
if (location.hash) history.replaceState(null, "", location.pathname); // neither seen nor shared
sessionStorage.setItem("token", token);
addEventListener("hashchange", () => location.reload()); // a token was pasted behind the address

function connect() {
  clearTimeout(retry);
  const url = new URL("ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.binaryType = "blob";
  heardAt = performance.now();
  newestNumber = 0;
  socket.onopen = () => watch($("cameras").value);
  socket.onmessage = ({ data }) => {
    heardAt = performance.now();
    if (typeof data === "string") heard(JSON.parse(data));
    else if (announced) arrived(data, announced);
  };
  socket.onclose = ({ code, reason }) => lost(code === 4401 ? "" : reason, code === 4401);
}

function lost(reason, refused = false) {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close();
  announced = null;
  for (const then of pending.values()) then({ done: false });
  pending.clear();
  wasLost = true;
  cancel();
  $("frame").classList.add("stale");
  $("panel").inert = canvas.inert = true;
  $("link").classList.remove("live");
  say($("link"), "Not connected");
  notice(refused ? "The token is wrong or missing." : `The connection to the console is lost${
    reason ? ` (${reason})` : ""}. Trying again…`, true);
  if (refused) return askToken();
  retry = setTimeout(connect, Math.min(8000, 500 * 2 ** tries++));
}

function askToken() {
  $("ask-token").showModal();
  $("ask-token").onclose = () => {
    token = $("token").value.trim();
    sessionStorage.setItem("token", token);
    connect();
  };
}

function send(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function watch(camera) {
  send({ do: "watch", camera, token, width: Math.round(canvas.clientWidth * devicePixelRatio) || 640 });
}

function call(message, then) {
  pending.set(++calls, then);
  send({ ...message, call: calls });
}

// Messages from the console

function heard(message) {
  if (message.is === "view") announced = { ...message, at: performance.now() };
  if (message.is === "answer") {
    pending.get(message.call)?.(message);
    pending.delete(message.call);
    answer(message.text, message.done);
  }
  if (message.is === "state") {
    tries = 0;
    $("panel").inert = canvas.inert = false;
    $("link").classList.add("live");
    if (wasLost) { answer("Connected again.", true); refocus(canvas); }
    wasLost = false;
    listCameras(message.cameras, message.watched);
    notice(message.notice);
    sample(message.figures, message.at, message.watched);
  }
}

async function arrived(blob, described) {
  announced = null;
  const from = socket, ms = performance.now() - described.at;
  if (document.hidden) { // without acknowledgments, the server sends nothing meanwhile
    await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
  }
  try {
    const bitmap = await createImageBitmap(blob);
    if (from === socket && described.number > newestNumber) show(bitmap, described, blob.size);
  } finally {
    if (from === socket) send({ do: "acknowledge", number: described.number, ms: Math.round(ms * 10) / 10 });
  }
}

function show(bitmap, described, bytes) {
  if (described.watched !== newestWatched) cancel(); // another camera: no longer hold its picture
  newestWatched = described.watched;
  newestNumber = described.number;
  if (newest !== shown) newest?.bitmap.close(); // frees the pixels now, not at a garbage collection
  newest = { described, bitmap };
  const now = performance.now();
  arrivals.push({ now, bytes });
  while (arrivals[0].now < now - 2000) arrivals.shift();
  $("nothing").hidden = true;
  if (!selection) showNewest();
  listTargets(described.tracks);
  draw();
}

function showNewest() {
  if (shown !== newest) shown?.bitmap.close();
  shown = newest;
}

// Texts and lists

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function notice(text, bad = false) {
  $("notice").hidden = !text;
  $("notice").classList.toggle("bad", bad);
  // Seconds that are counted up are not read aloud each time.
  const counted = wordsOf($("notice").textContent) === wordsOf(text);
  $("notice").setAttribute("aria-live", counted ? "off" : "assertive");
  say($("notice"), text);
}

function wordsOf(text) {
  return text.replace(/[\d.]+/g, "");
}

let dismissal;
function answer(text, good) {
  clearTimeout(dismissal);
  $("answer").hidden = false;
  $("answer").classList.toggle("bad", !good);
  say($("answer").firstElementChild, text);
  dismissal = setTimeout(() => { $("answer").hidden = true; }, good ? 4000 : 15000);
}
$("answer").lastElementChild.onclick = () => { $("answer").hidden = true; };

function hint() {
  const whom = again ? `Select ${again} again: drag a box around it, or tap it.` : HINT;
  $("hint").classList.toggle("asked", Boolean(again || selection));
  say($("hint"), { keys: KEYS, pointer: HELD }[selection?.by] ?? whom);
  for (const item of $("targets").children) {
    item.querySelector(".again").setAttribute("aria-pressed", String(item.dataset.id === again));
  }
}

function listCameras(names, watched) {
  const list = $("cameras");
  if (names.join("\n") !== [...list.options].map((each) => each.value).join("\n")) {
    list.replaceChildren(...names.map((name) => new Option(name, name)));
  }
  if (document.activeElement !== list) list.value = watched;
  $("camera-choice").hidden = names.length < 2;
}
$("cameras").onchange = () => watch($("cameras").value);

function listTargets(tracks) {
  const list = $("targets"), ids = new Set(tracks.map((each) => each.id));
  // A target that is selected again is missing for a moment: its entry stays, so that no button moves.
  for (const item of [...list.children]) {
    item.goneAt = ids.has(item.dataset.id) ? 0 : item.goneAt || performance.now();
    if (item.goneAt && performance.now() - item.goneAt > GONE) item.remove();
  }
  for (const track of tracks) {
    let item = [...list.children].find((each) => each.dataset.id === track.id);
    if (!item) {
      colors.set(track.id, colorFor(track.id, ids));
      item = $("target").content.firstElementChild.cloneNode(true);
      item.dataset.id = track.id;
      say(item.querySelector(".id"), track.id);
      item.querySelector(".swatch").style.background = colors.get(track.id);
      item.querySelector(".again").onclick = () => { again = again === track.id ? "" : track.id; hint(); canvas.focus(); };
      const stop = item.querySelector(".stop");
      stop.onclick = () => {
        stop.disabled = true;
        call({ do: "stop", id: track.id }, ({ done }) => {
          stop.disabled = false;
          if (done) ended(track.id);
          refocus(done ? canvas : stop);
        });
      };
      list.append(item);
    }
    const state = item.querySelector(".state"), lostFor = track.state === LOST ? ` for ${track.lost.toFixed(1)} s` : "";
    state.dataset.state = track.state;
    say(state, `${STATES[track.state] ?? "Unknown"}${lostFor}`);
    item.querySelector("progress").value = track.score;
    say(item.querySelector(".sure"), `${Math.round(100 * track.score)} % sure`);
  }
  if (again && ![...list.children].some((each) => each.dataset.id === again)) again = "";
  $("no-targets").hidden = list.children.length > 0;
  $("stop-all").disabled = tracks.length === 0;
  hint();
}

// A target's previous color, as when it is selected again, or else one that no other target has.
function colorFor(id, ids) {
  const taken = [...ids].filter((each) => each !== id).map((each) => colors.get(each));
  for (const each of colors.keys()) if (colors.size > 50 && !ids.has(each)) colors.delete(each);
  return [colors.get(id), ...COLORS].find((each) => each && !taken.includes(each)) ?? COLORS[0];
}
$("stop-all").onclick = () => call({ do: "stop_all" }, ({ done }) => {
  if (done) ended();
  refocus(canvas);
});

// The node has stopped a target, or all: do not wait for a picture that says so.
function ended(id) {
  if (!newest) return;
  const tracks = newest.described.tracks;
  newest.described.tracks = tracks.filter((each) => id !== undefined && each.id !== id);
  for (const item of [...$("targets").children]) if (id === undefined || item.dataset.id === id) item.remove();
  listTargets(newest.described.tracks);
  draw();
}

// A button that is disabled or removed loses the focus, and a person at the keyboard their place.
function refocus(element) {
  const focused = document.activeElement;
  if (focused === document.body || focused.disabled) element.focus({ preventScroll: true });
}

// The picture

function fit() {
  if (!shown) return;
  const [width, height] = shown.described.size;
  const below = innerWidth > innerHeight ? 50 : 180; // room for the hint, and upright for the targets
  const room = $("stage").clientWidth, most = Math.max(180, innerHeight - $("stage").offsetTop - below);
  const across = Math.min(room, most * width / height);
  canvas.style.width = `${across}px`;
  canvas.style.height = `${across * height / width}px`;
  const dots = Math.round(across * devicePixelRatio);
  if (canvas.width !== dots) {
    canvas.width = dots;
    canvas.height = Math.round(dots * height / width);
    watch("");
  }
}

function draw() {
  if (!shown) return;
  fit();
  const { described, bitmap } = shown, scale = canvas.width / described.size[0];
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const placed = []; // labels
  for (const track of described.tracks) {
    const dash = { 1: [], 2: [10, 6], 3: [3, 5] }[track.state] ?? [];
    frame(track.box, scale, colors.get(track.id) ?? COLORS[0], dash);
  }
  for (const track of described.tracks) label(track, scale, colors.get(track.id) ?? COLORS[0], placed);
  for (const box of [selection?.box, asked]) if (box) frame(box, scale, "#ffffff", [6, 4]);
}

function frame([x, y, w, h], scale, color, dash) {
  const unit = devicePixelRatio;
  for (const [width, style] of [[5, "rgb(0 0 0 / .65)"], [2.5, color]]) {
    pen.lineWidth = width * unit;
    pen.strokeStyle = style;
    pen.setLineDash(width === 5 ? [] : dash.map((each) => each * unit));
    if (w * scale < 2 && h * scale < 2) { // a point
      pen.beginPath();
      pen.arc(x * scale, y * scale, 9 * unit, 0, 7);
      pen.stroke();
    } else pen.strokeRect(x * scale - 2 * unit, y * scale - 2 * unit, w * scale + 4 * unit, h * scale + 4 * unit);
  }
}

function label(track, scale, color, placed) {
  const unit = devicePixelRatio, [x, y, w, h] = track.box.map((each) => each * scale);
  const words = track.state === LOST ? "lost" : `${Math.round(100 * track.score)} %`;
  const text = `${track.id.length > 24 ? `${track.id.slice(0, 23)}…` : track.id} · ${words}`;
  pen.font = `600 ${13 * unit}px system-ui, "DejaVu Sans", sans-serif`;
  const width = pen.measureText(text).width + 10 * unit, height = 19 * unit;
  const left = Math.max(0, Math.min(x - 3 * unit, canvas.width - width));
  const above = y - height - 5 * unit, below = Math.min(y + h + 5 * unit, canvas.height - height);
  const free = (top) => top >= 0 && top <= canvas.height - height && !placed.some(([a, b, long]) =>
    Math.abs(b - top) < height && a < left + width && left < a + long);
  const near = [above, below, ...[1, 2, 3].flatMap((each) => [above - each * height, below + each * height])];
  const top = near.find(free) ?? Math.max(0, above);
  placed.push([left, top, width]);
  pen.fillStyle = color;
  pen.fillRect(left, top, width, height);
  pen.fillStyle = "#000";
  pen.fillText(text, left + 5 * unit, top + 14 * unit);
}

// Selecting: while a box is drawn, the picture is held; its stamp is sent with the box

function point(event) {
  const edge = canvas.getBoundingClientRect(), [width, height] = shown.described.size;
  const inside = (value, most) => Math.max(0, Math.min(most, value));
  return [inside((event.clientX - edge.left) * width / edge.width, width),
    inside((event.clientY - edge.top) * height / edge.height, height)];
}

canvas.onpointerdown = (event) => {
  if (!shown || event.button !== 0) return;
  if (!event.isPrimary) return cancel(); // a second finger
  canvas.setPointerCapture(event.pointerId);
  const [x, y] = point(event);
  selection = { by: "pointer", box: [x, y, 0, 0], from: [x, y], at: [event.clientX, event.clientY] };
  hint();
};
canvas.onpointermove = (event) => {
  if (selection?.by !== "pointer") return;
  const [x, y] = point(event), [a, b] = selection.from;
  selection.box = [Math.min(a, x), Math.min(b, y), Math.abs(x - a), Math.abs(y - b)];
  draw();
};
canvas.onpointerup = (event) => {
  if (selection?.by !== "pointer") return;
  const [a, b] = selection.at, moved = Math.hypot(event.clientX - a, event.clientY - b);
  if (moved < TAP) selection.box = [...selection.from, 0, 0];
  start();
};
canvas.onpointercancel = cancel;

canvas.onkeydown = (event) => {
  if (event.key === "Escape") { again = ""; return cancel(); }
  if (!shown || event.ctrlKey || event.metaKey) return;
  const [width, height] = shown.described.size, step = (event.altKey ? 0.002 : 0.02) * width;
  if (selection?.by !== "keys") {
    if (event.key !== "Enter" && event.key !== " ") return;
    selection = { by: "keys", box: [0.42 * width, 0.42 * height, 0.16 * width, 0.16 * height] };
  } else {
    const [x, y, w, h] = selection.box;
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] ?? [0, 0];
    if (event.key === "Enter" || event.key === " ") start();
    else if (event.key === "p" || event.key === "P") { selection.box = [x + w / 2, y + h / 2, 0, 0]; start(); }
    else if (dx || dy) {
      selection.box = event.shiftKey
        ? [x, y, Math.max(4, Math.min(width - x, w + dx)), Math.max(4, Math.min(height - y, h + dy))]
        : [Math.max(0, Math.min(width - w, x + dx)), Math.max(0, Math.min(height - h, y + dy)), w, h];
    } else return;
  }
  event.preventDefault();
  hint();
  draw();
};

function cancel() {
  selection = null;
  showNewest();
  hint();
  draw();
}

function start() {
  const { stamp, frame_id } = shown.described, box = asked = selection.box;
  call({ do: "start", box, stamp, frame_id, id: again }, () => { asked = null; });
  again = "";
  cancel();
}

// The last minute

const CURVES = [
  { name: "Latency", unit: "ms", least: 50, of: (each) => each.latency },
  { name: "Images tracked", unit: "per s", least: 10, of: (each) => each.rate },
  { name: "Images dropped", unit: "per s", least: 5, of: (each) => each.drops },
];
for (const each of CURVES) {
  each.figure = $("curve").content.firstElementChild.cloneNode(true);
  say(each.figure.querySelector(".name"), each.name);
  $("curves").append(each.figure);
}

function sample(figures, at, watched) { // `at`: the console's clock in s, as messages may be delayed
  if (samples.at(-1)?.watched !== watched) samples.length = 0; // another tracker's figures
  const now = performance.now(), last = samples.at(-1), seconds = last ? at - last.at : 0;
  const each = { now, at, watched, figures, latency: figures.latency_ms ?? NaN };
  const count = (name) => (seconds > 0.5 && seconds < 3 ? Math.max(0, (figures[name] - last.figures[name]) / seconds) : NaN);
  each.rate = count("tracked");
  each.drops = count("dropped");
  samples.push(each);
  while (samples[0].now < now - MINUTE) samples.shift();
  for (const { figure, name, unit, least, of } of CURVES) {
    const values = samples.map(of), known = values.filter(Number.isFinite);
    const most = Math.max(least, ...known), newestValue = values.at(-1);
    let path = "", joined = false;
    samples.forEach((sampled, index) => {
      const value = values[index], gap = index && sampled.now - samples[index - 1].now > 3000;
      if (Number.isFinite(value)) {
        path += `${joined && !gap ? "L" : "M"}${(60 - (now - sampled.now) / 1000).toFixed(2)} ${(19 - 18 * value / most).toFixed(2)}`;
      }
      joined = Number.isFinite(value);
    });
    figure.querySelector("path").setAttribute("d", path);
    const text = Number.isFinite(newestValue) ? `${newestValue.toFixed(1)} ${unit}` : "–";
    say(figure.querySelector("output"), text);
    const peak = known.length ? `at most ${Math.max(...known).toFixed(1)} ${unit}` : "no figures yet";
    say(figure.querySelector("small"), peak);
    figure.querySelector("svg").setAttribute("aria-label", `${name} over the last minute: ${text} now, ${peak}`);
  }
  say($("means"), figures.network ? `${figures.network} on ${figures.backend}, ${figures.device}` : "");
}

setInterval(() => {
  const now = performance.now(), recent = arrivals.filter((each) => each.now > now - 2000);
  if (socket.readyState === WebSocket.OPEN && !wasLost) {
    const rate = recent.length / 2, kilobits = recent.reduce((sum, each) => sum + each.bytes, 0) / 250;
    const size = newest ? ` · ${newest.bitmap.width} px` : "";
    const flow = kilobits < 1000 ? `${kilobits.toFixed(0)} kbit/s` : `${(kilobits / 1000).toFixed(1)} Mbit/s`;
    $("frame").classList.toggle("stale", recent.length === 0);
    say($("link"), `Live · ${rate.toFixed(rate < 10 ? 1 : 0)} pictures/s${size} · ${flow}`);
  }
  if (socket.readyState < WebSocket.CLOSING && now - heardAt > SILENCE) lost("no answer");
}, 1000);
addEventListener("resize", draw);
hint();
connect();
