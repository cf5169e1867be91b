/**
 * The page of a served model: a drawing goes to the server while it is made, and what the server says of it is shown.
 *
 * Lengths of a drawing are shares of the sheet's side, so that it is the same at any size and on any screen.
 */

import { Feedback } from './feedback.js';
import { Trouble, checkReady, predict } from './server.js';

const SENT_SIDE = 280; // pixels
const PIXELS = 28;
const INK_WIDTH = 0.075;
const KEY_STEP = 1 / PIXELS;
const SPRITE = { url: 'samples.png', rows: 10, columns: 20 };

const THROTTLE_MS = 60;
const SLOW_MS = 1500;
const LIMIT_MS = 6000;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8000;
const SETTLED_MS = 700;

const element = (id) => document.getElementById(id);

/** @typedef {{x: number, y: number}} Point */
/** @typedef {import('./server.js').Answer} Answer */

/** All that was done on the sheet, in order. A stroke adds to what is there; a sample and a clearing start anew. */
class Drawing {
  #marks = [];

  get isBlank() {
    return this.#seen().every((mark) => mark.kind === 'clear');
  }

  get canUndo() {
    return this.#marks.length > 0;
  }

  /** The sample that is drawn on, if any. */
  get sample() {
    return this.#seen().find((mark) => mark.kind === 'sample');
  }

  add(mark) {
    this.#marks.push(mark);
  }

  undo() {
    this.#marks.pop();
  }

  /** Draw it in `ink` over whatever `context` holds, which is `side` pixels wide and high. */
  paint(context, side, ink) {
    for (const mark of this.#seen()) {
      if (mark.kind === 'sample') paintTile(context, side, ink, mark.tile);
      if (mark.kind === 'stroke') paintStroke(context, side, ink, mark.points);
    }
  }

  #seen() {
    const start = this.#marks.findLastIndex((mark) => mark.kind !== 'stroke');
    return this.#marks.slice(Math.max(start, 0));
  }
}

function makeCanvas(side) {
  return Object.assign(document.createElement('canvas'), { width: side, height: side });
}

/** Curves through the middles between points, which hides the corners that a fast hand leaves. */
function paintStroke(context, side, ink, points) {
  const [first, ...rest] = points.map(({ x, y }) => ({ x: x * side, y: y * side }));
  const last = rest.at(-1) ?? first;
  Object.assign(context, { strokeStyle: ink, lineWidth: INK_WIDTH * side, lineCap: 'round', lineJoin: 'round' });
  context.beginPath();
  context.moveTo(first.x, first.y);
  let previous = first;
  for (const point of rest) {
    context.quadraticCurveTo(previous.x, previous.y, (previous.x + point.x) / 2, (previous.y + point.y) / 2);
    previous = point;
  }
  // A line of no length is not painted, and so no dot would be: a hundredth of a pixel is enough.
  context.lineTo(last.x + 0.01, last.y);
  context.stroke();
}

function paintTile(context, side, ink, tile) {
  const tinted = makeCanvas(side);
  const painter = tinted.getContext('2d');
  painter.imageSmoothingEnabled = false;
  painter.drawImage(tile, 0, 0, side, side);
  painter.globalCompositeOperation = 'source-in';
  painter.fillStyle = ink;
  painter.fillRect(0, 0, side, side);
  context.drawImage(tinted, 0, 0);
}

/** A 28x28 canvas whose opacity is what `shade(index)` says of each pixel, from 0 to 255. */
function paintPixels(canvas, shade, brightness) {
  const pixels = new ImageData(PIXELS, PIXELS);
  for (let index = 0; index < PIXELS * PIXELS; index += 1) {
    pixels.data.fill(brightness, index * 4, index * 4 + 3);
    pixels.data[index * 4 + 3] = shade(index);
  }
  canvas.getContext('2d').putImageData(pixels, 0, 0);
  return canvas;
}

/** What is sent: black on white, whatever the theme. @returns {Promise<Blob>} */
function toPicture(drawing) {
  const canvas = makeCanvas(SENT_SIDE);
  const context = canvas.getContext('2d');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, SENT_SIDE, SENT_SIDE);
  drawing.paint(context, SENT_SIDE, '#000');
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
}

/** Test images, fetched when the first one is wanted. */
class Samples {
  #sprite;
  #last = -1;

  /** Another one than before. Raises what `Image.decode` raises where the file cannot be had. */
  async pick() {
    const sprite = await this.#load();
    const count = SPRITE.rows * SPRITE.columns;
    this.#last = (this.#last + 1 + Math.floor(Math.random() * (count - 1))) % count;
    const label = Math.floor(this.#last / SPRITE.columns);
    return { kind: 'sample', label, tile: this.#cut(sprite, this.#last % SPRITE.columns, label) };
  }

  async #load() {
    if (!this.#sprite) {
      const sprite = Object.assign(new Image(), { src: SPRITE.url });
      await sprite.decode();
      this.#sprite = sprite;
    }
    return this.#sprite;
  }

  #cut(sprite, column, row) {
    const tile = makeCanvas(PIXELS);
    const context = tile.getContext('2d');
    context.drawImage(sprite, -column * PIXELS, -row * PIXELS);
    const { data } = context.getImageData(0, 0, PIXELS, PIXELS);
    return paintPixels(tile, (index) => data[index * 4], 0);
  }
}

/** Keeps what is shown in step with the drawing: one request at a time, of the newest drawing, again after failures. */
class Live {
  #timer = 0;
  #controller = null;
  #failures = 0;
  #revision = 0;
  #isSettled = false;

  constructor(drawing, view, feedback) {
    Object.assign(this, { drawing, view, feedback });
    const wake = () => document.visibilityState === 'visible' && !this.#isSettled && this.#plan(0);
    document.addEventListener('visibilitychange', wake);
    window.addEventListener('online', wake);
    this.#plan(0);
  }

  /** The drawing is another one now. */
  changed() {
    this.#revision += 1;
    this.#isSettled = false;
    this.feedback.follow(this.drawing);
    if (this.drawing.isBlank) {
      this.#controller?.abort('unwanted');
      this.view.showNothing();
    }
    // A plan that is there stands: while the server fails it is asked no more often for being drawn for.
    if (!this.#timer) this.#plan(THROTTLE_MS);
  }

  #plan(delayMs) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), delayMs);
  }

  async #ask() {
    this.#timer = 0;
    if (this.#controller || document.visibilityState === 'hidden') return;
    const revision = this.#revision;
    this.#controller = new AbortController();
    const slow = setTimeout(() => this.view.showSlow(), SLOW_MS);
    const limit = setTimeout(() => this.#controller?.abort('late'), LIMIT_MS);
    const outcome = await this.#fetchAnswer(this.#controller.signal).catch((error) => error);
    const isUnwanted = this.#controller.signal.reason === 'unwanted';
    this.#controller = null;
    clearTimeout(slow);
    clearTimeout(limit);
    if (!isUnwanted) this.#take(outcome, revision === this.#revision);
    if (revision !== this.#revision && !this.#timer) this.#plan(THROTTLE_MS);
  }

  /** With nothing drawn there is only one question: whether the server is there. */
  async #fetchAnswer(signal) {
    if (this.drawing.isBlank) {
      await checkReady(signal);
      return null;
    }
    return predict(await toPicture(this.drawing), signal);
  }

  #take(outcome, isNewest) {
    if (!(outcome instanceof Error)) {
      this.#failures = 0;
      this.#isSettled = isNewest;
      this.view.showReady();
      if (!outcome || this.drawing.isBlank) return;
      this.view.showAnswer(outcome);
      if (isNewest) this.feedback.offer(outcome);
      return;
    }
    const trouble = outcome instanceof Trouble ? outcome : new Trouble(`This page failed: ${outcome.message}.`, { isFinal: true });
    this.#isSettled = isNewest && trouble.isFinal;
    if (trouble.isFinal && !isNewest) return;
    this.view.showTrouble(trouble);
    this.feedback.withdraw();
    if (trouble.isFinal) return;
    this.#plan(Math.max(trouble.waitMs, Math.min(FIRST_RETRY_MS * 2 ** this.#failures, LAST_RETRY_MS)));
    this.#failures += 1;
  }
}

/** Says `words` in a live region once nothing else was to be said there for a while. */
class Speaker {
  #timer = 0;

  constructor(region) {
    this.region = region;
  }

  say(words) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.region.replaceChildren(words), SETTLED_MS);
  }
}

const percent = (share, digits = 1) => (share * 100).toFixed(digits);
const withArticle = (digit) => `${digit === 8 ? 'an' : 'a'} ${digit}`;

function phrase({ label, probabilities }) {
  const share = Math.max(...probabilities);
  return share < 0.5 ? `Perhaps ${withArticle(label)}` : `Looks like ${withArticle(label)}`;
}

/** All but the sheet itself. */
class View {
  #speaker = new Speaker(element('spoken'));
  #bars = Array.from({ length: 10 }, (_, digit) => makeBar(digit));
  #panel = document.querySelector('.answer');

  constructor() {
    element('bars').append(...this.#bars.map(({ row }) => row));
    this.showNothing();
  }

  showNothing() {
    this.#panel.dataset.blank = '';
    element('digit').textContent = '?';
    element('verdict').textContent = 'No answer yet';
    for (const id of ['shares', 'notice']) element(id).textContent = '';
    element('latency').textContent = '–';
    paintPixels(element('seen'), () => 0, 255);
    this.#showShares(Array(10).fill(0), -1);
    this.#speaker.say('');
  }

  /** @param {Answer} answer */
  showAnswer(answer) {
    const { label, probabilities } = answer;
    const order = probabilities.map((_, digit) => digit).sort((one, other) => probabilities[other] - probabilities[one]);
    element('digit').textContent = label;
    const [first, second] = order.map((digit) => probabilities[digit]);
    delete this.#panel.dataset.blank;
    element('verdict').textContent = phrase(answer);
    element('shares').textContent = `${percent(first)} %${second < 0.001 ? '' : `, or ${withArticle(order[1])}: ${percent(second)} %`}`;
    element('latency').textContent = `${Math.max(1, Math.round(answer.took))} ms`;
    element('version').textContent = answer.version || '–';
    element('run').textContent = answer.run.slice(0, 8);
    element('run-fact').hidden = !answer.run;
    if (answer.image) paintPixels(element('seen'), (index) => 255 * answer.image[Math.floor(index / PIXELS)][index % PIXELS], 255);
    this.#showShares(probabilities, order[0]);
    this.#speaker.say(`${phrase(answer)}, ${percent(first, 0)} percent`);
  }

  showReady() {
    this.#showState('ready', 'is ready', '');
    delete this.#panel.dataset.old;
  }

  showSlow() {
    this.#showState('waiting', 'is slow', 'The server is slow to answer. Your drawing is kept.');
  }

  /** @param {Trouble} trouble */
  showTrouble({ isAway, message }) {
    this.#showState(isAway ? 'away' : 'ready', isAway ? 'is away' : 'is ready', message);
    this.#panel.dataset.old = '';
  }

  #showState(state, words, notice) {
    document.querySelector('.state').dataset.state = state;
    element('state').textContent = words;
    // The same words once more would only be read out again.
    if (element('notice').textContent !== notice) element('notice').textContent = notice;
  }

  #showShares(probabilities, best) {
    this.#bars.forEach(({ row, meter, share }, digit) => {
      const value = percent(probabilities[digit]);
      row.classList.toggle('best', digit === best);
      meter.style.setProperty('--share', probabilities[digit]);
      meter.setAttribute('aria-valuenow', value);
      meter.setAttribute('aria-valuetext', `${value} percent`);
      share.textContent = best < 0 ? '–' : `${value} %`;
    });
  }
}

function makeBar(digit) {
  const [row, name, meter, fill, share] = ['li', 'span', 'div', 'span', 'span'].map((tag) => document.createElement(tag));
  name.textContent = digit;
  for (const shown of [name, share]) shown.setAttribute('aria-hidden', 'true');
  Object.assign(meter, { className: 'bar', role: 'meter', ariaLabel: `Probability of ${digit}`, ariaValueMin: 0, ariaValueMax: 100 });
  share.className = 'share';
  meter.append(fill);
  row.append(name, meter, share);
  return { row, meter, share };
}

/** The canvas: what is drawn on it with a pointer or with keys. Calls `changed` after each change. */
class Sheet {
  #canvas = element('paper');
  #speaker = new Speaker(element('pen'));
  #frame = 0;
  /** Points of the stroke that is being drawn, by which pointer. */
  #stroke = null;
  #pointer = null;
  #pen = { x: 0.5, y: 0.25 };
  #hasKeys = false;

  constructor(drawing, changed) {
    Object.assign(this, { drawing, changed });
    const canvas = this.#canvas;
    canvas.addEventListener('pointerdown', (event) => this.#press(event));
    canvas.addEventListener('pointermove', (event) => this.#move(event));
    for (const end of ['pointerup', 'pointercancel', 'lostpointercapture']) {
      canvas.addEventListener(end, (event) => event.pointerId === this.#pointer && this.lift());
    }
    canvas.addEventListener('keydown', (event) => this.#key(event));
    canvas.addEventListener('focus', () => this.#useKeys(canvas.matches(':focus-visible')));
    canvas.addEventListener('blur', () => this.#useKeys(false));
    new ResizeObserver(() => this.repaint()).observe(canvas);
    window.addEventListener('resize', () => this.repaint());
    window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.repaint());
  }

  /** End the stroke that is being drawn, if any. */
  lift() {
    this.#stroke = this.#pointer = null;
    this.repaint();
  }

  repaint() {
    this.#frame ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#frame = 0;
    const canvas = this.#canvas;
    const side = Math.round(canvas.clientWidth * window.devicePixelRatio);
    if (canvas.width !== side) Object.assign(canvas, { width: side, height: side });
    const context = canvas.getContext('2d');
    const ink = getComputedStyle(canvas).color;
    context.clearRect(0, 0, side, side);
    this.drawing.paint(context, side, ink);
    if (this.#hasKeys) this.#paintPen(context, side);
  }

  #useKeys(hasKeys) {
    if (!hasKeys && this.#pointer === null) this.#stroke = null;
    this.#hasKeys = hasKeys;
    this.repaint();
  }

  /** Where the keys would draw: a ring, filled while the pen is down. */
  #paintPen(context, side) {
    const accent = getComputedStyle(document.documentElement).getPropertyValue('--accent');
    Object.assign(context, { strokeStyle: accent, fillStyle: accent, lineWidth: side / 120 });
    context.beginPath();
    context.arc(this.#pen.x * side, this.#pen.y * side, side * INK_WIDTH * 0.6, 0, 2 * Math.PI);
    context.stroke();
    if (this.#stroke) context.fill();
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  #start(point) {
    this.#stroke = [point];
    this.drawing.add({ kind: 'stroke', points: this.#stroke });
    this.repaint();
    this.changed();
  }

  #press(event) {
    if (!event.isPrimary || event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#useKeys(false);
    this.#pointer = event.pointerId;
    this.#start(this.#point(event));
  }

  #move(event) {
    if (!this.#stroke || event.pointerId !== this.#pointer) return;
    const events = event.getCoalescedEvents();
    this.#stroke.push(...(events.length ? events : [event]).map((part) => this.#point(part)));
    this.repaint();
    this.changed();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.#pointer !== null) return;
    const [right, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (right || down) this.#movePen(right * (event.shiftKey ? 4 : 1), down * (event.shiftKey ? 4 : 1));
    else if (event.key !== ' ' && event.key !== 'Enter') return;
    else if (!event.repeat) this.#togglePen();
    event.preventDefault();
    this.#useKeys(true);
    const [column, row] = [this.#pen.x, this.#pen.y].map((share) => Math.round(share * PIXELS));
    this.#speaker.say(`Pen ${this.#stroke ? 'down' : 'up'}, column ${column}, row ${row} of ${PIXELS}`);
  }

  #togglePen() {
    if (this.#stroke) this.lift();
    else this.#start({ ...this.#pen });
  }

  #movePen(right, down) {
    const within = (share) => Math.min(Math.max(share, KEY_STEP), 1 - KEY_STEP);
    this.#pen = { x: within(this.#pen.x + right * KEY_STEP), y: within(this.#pen.y + down * KEY_STEP) };
    this.repaint();
    if (!this.#stroke) return;
    this.#stroke.push({ ...this.#pen });
    this.changed();
  }
}

/** Buttons, shortcuts and the line below the sheet. */
class Desk {
  #drawing = new Drawing();
  #samples = new Samples();
  #live = new Live(this.#drawing, new View(), new Feedback(new Speaker(element('asked'))));
  #sheet = new Sheet(this.#drawing, () => this.#changed());

  constructor() {
    const actions = {
      undo: () => this.#replace(() => this.#drawing.undo()),
      clear: () => this.#replace(() => this.#drawing.isBlank || this.#drawing.add({ kind: 'clear' })),
      sample: () => this.#pickSample(),
    };
    for (const [id, act] of Object.entries(actions)) element(id).addEventListener('click', act);
    document.addEventListener('keydown', (event) => {
      const act = actions[shortcut(event)];
      if (!act || event.defaultPrevented) return;
      event.preventDefault();
      act();
    });
    this.#showHint();
  }

  /** Put something else on the sheet than the stroke that is being drawn, which ends. */
  #replace(change) {
    change();
    this.#sheet.lift();
    this.#changed();
  }

  async #pickSample() {
    try {
      const sample = await this.#samples.pick();
      this.#replace(() => this.#drawing.add(sample));
    } catch {
      element('hint').textContent = 'The test images cannot be fetched now; try again, or draw a digit.';
    }
  }

  #changed() {
    this.#live.changed();
    this.#showHint();
  }

  /** Buttons that can do nothing keep the focus, which `disabled` would lose. */
  #showHint() {
    const { sample, isBlank, canUndo } = this.#drawing;
    element('undo').setAttribute('aria-disabled', !canUndo);
    element('clear').setAttribute('aria-disabled', isBlank);
    element('hint').textContent = sample
      ? `From the MNIST test set: ${withArticle(sample.label)}. Draw on it to see what changes the answer.`
      : 'One digit, as large as you like.';
  }
}

/** Which action a key asks for; held keys and the browser's own combinations ask for none. */
function shortcut({ key, ctrlKey, metaKey, altKey, shiftKey, repeat }) {
  if (altKey || shiftKey) return null;
  if (ctrlKey || metaKey) return key.toLowerCase() === 'z' ? 'undo' : null;
  return repeat ? null : { Escape: 'clear', Delete: 'clear', r: 'sample' }[key];
}

new Desk();
