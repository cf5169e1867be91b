/**
 * Whether an answer was right, as whoever drew the digit says.
 *
 * What people volunteer says what goes wrong, not how often. So the page asks too, about a share of the drawings that the server
 * states. Which ones is decided by chance when a drawing begins, before there is an answer that could sway it.
 */

import { sendLabel } from './server.js';

const LIMIT_MS = 6000;
// "off", or the share of the drawings that are asked about.
const setting = document.querySelector('meta[name="feedback"]').content;

const [panel, question, opinion, right, wrong, truth] = ['feedback', 'question', 'opinion', 'right', 'wrong', 'truth'].map((id) =>
  document.getElementById(id),
);

const QUESTION = 'Is that right?';
const REQUEST = 'Picked at random: is that right?';

/** The buttons below the answer. They are about drawings, and not about test images, whose labels are known. */
export class Feedback {
  /** The answer to the drawing as it is now, once there is one. */
  #answer = null;
  /** The drawing since the sheet was blank: whether it was picked, and whether a label of it was sent. */
  #drawing = null;
  #digits = Array.from({ length: 10 }, (_, digit) => makeButton(digit, () => this.#send(digit)));

  /** What is asked at random is said aloud by `speaker`, and so is what became of an opinion. */
  constructor(speaker) {
    this.speaker = speaker;
    if (setting === 'off') return;
    truth.append(...this.#digits, makeButton('Back', () => this.#close()));
    right.addEventListener('click', () => this.#send(this.#answer?.label));
    wrong.addEventListener('click', () => this.#open());
    truth.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return;
      // Elsewhere it clears the sheet.
      event.preventDefault();
      this.#close();
    });
    this.withdraw();
    panel.hidden = false;
  }

  /** `drawing` is another one now. */
  follow(drawing) {
    this.#answer = null;
    if (setting === 'off') return;
    if (drawing.isBlank || drawing.sample) {
      this.#drawing = null;
      this.withdraw();
      return;
    }
    this.#drawing ??= { isAsked: Math.random() < Number(setting), isDone: false };
    // There is no answer yet that could be right.
    this.#enable(false);
    this.#fold();
  }

  /** @param {import('./server.js').Answer} answer to the drawing as it is now */
  offer(answer) {
    if (!this.#drawing || this.#answer) return;
    this.#answer = answer;
    const isNew = panel.dataset.state === 'closed';
    panel.dataset.state = this.#drawing.isAsked && !this.#drawing.isDone ? 'asked' : 'open';
    if (this.#drawing.isDone) return;
    this.#say(this.#drawing.isAsked ? REQUEST : QUESTION, this.#drawing.isAsked && isNew);
    this.#enable(true);
  }

  /** Show nothing until there is an answer. */
  withdraw() {
    this.#answer = null;
    this.#fold();
    panel.dataset.state = 'closed';
    this.speaker.say('');
  }

  #open() {
    if (!this.#answer || this.#drawing.isDone) return;
    this.#digits.forEach((button, digit) => button.toggleAttribute('hidden', digit === this.#answer.label));
    this.#unfold(true);
    this.#say('Which digit did you draw?', false);
    this.#digits.find((button) => !button.hidden).focus();
  }

  #close() {
    this.#fold();
    this.#say(this.#drawing?.isAsked ? REQUEST : QUESTION, false);
    wrong.focus();
  }

  async #send(label) {
    const [answer, drawing] = [this.#answer, this.#drawing];
    if (!answer || drawing.isDone) return;
    drawing.isDone = true;
    this.#enable(false);
    if (!truth.hidden) this.#close();
    this.#say('Sending…', false);
    const outcome = await sendLabel(answer, label, drawing.isAsked, AbortSignal.timeout(LIMIT_MS)).catch((error) => error);
    drawing.isDone = !(outcome instanceof Error);
    // Meanwhile there may be another drawing, of which nothing was said.
    if (drawing !== this.#drawing) return;
    panel.dataset.state = 'open';
    this.#enable(!drawing.isDone);
    this.#say(describe(outcome, label, answer), true);
  }

  #say(words, isAloud) {
    question.textContent = words;
    if (isAloud) this.speaker.say(words);
  }

  #fold() {
    this.#unfold(false);
  }

  #unfold(isOpen) {
    [truth.hidden, opinion.hidden] = [!isOpen, isOpen];
    wrong.setAttribute('aria-expanded', isOpen);
  }

  /** Buttons that can do nothing keep the focus, which `disabled` would lose. */
  #enable(isEnabled) {
    for (const button of [right, wrong]) button.setAttribute('aria-disabled', !isEnabled);
  }
}

/** What became of an opinion, in words. */
function describe(outcome, label, answer) {
  if (outcome?.status === 429) return 'Too many opinions at this moment. Please say it again in a minute.';
  if (outcome instanceof Error) return 'That could not be sent. Please say it again.';
  if (!outcome) return 'Thank you. Another version answers by now, so this is counted apart.';
  return label === answer.label ? 'Thank you: noted as right.' : `Thank you: noted as wrong, it is ${label}.`;
}

function makeButton(name, act) {
  const button = Object.assign(document.createElement('button'), { type: 'button', textContent: name });
  button.addEventListener('click', act);
  return button;
}
