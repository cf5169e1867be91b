/** What the page asks of the server that it came from, and what it makes of the answers. */

const LONGEST_WAIT_MS = 30_000;
// These say that this drawing was not understood; any other failure may pass, and the drawing is sent again.
const FINAL_STATUSES = new Set([400, 413, 415, 422]);

const modelName = document.querySelector('meta[name="model"]').content;
const modelPath = (protocol) => `./${protocol}/models/${encodeURIComponent(modelName)}`;

/**
 * @typedef {{label: number, probabilities: number[], image?: number[][], version: string, run: string, took: number, picture: Blob}}
 *   Answer
 */

/** Why there is no answer, in words for a person. */
export class Trouble extends Error {
  constructor(words, { isFinal = false, isAway = true, waitMs = 0, status = 0 } = {}) {
    super(words);
    Object.assign(this, { isFinal, isAway, waitMs, status });
  }
}

/** What the server answers: its headers, and its body as JSON or else null. Raises `Trouble`. */
async function request(path, options) {
  let response, text;
  try {
    response = await fetch(path, { cache: 'no-store', ...options });
    text = await response.text();
  } catch {
    if (options.signal.reason === 'late') throw new Trouble('The server takes too long to answer. Trying again by itself.');
    throw new Trouble('The server cannot be reached. Your drawing is kept; trying again by itself.');
  }
  const body = parse(text);
  if (response.ok) return { headers: response.headers, body };
  const said = String(body?.error ?? '').slice(0, 300);
  if (FINAL_STATUSES.has(response.status)) {
    // The field's name says something to programs alone.
    const reason = said.replace(/^\w+: /, '') || `status ${response.status}`;
    throw new Trouble(`The server cannot read this drawing: ${reason}.`, { isFinal: true, isAway: false, status: response.status });
  }
  const waitMs = Math.min(Number(response.headers.get('retry-after')) * 1000 || 0, LONGEST_WAIT_MS);
  const words = response.status === 503 ? 'The server is not ready' : `The server has a problem (status ${response.status})`;
  throw new Trouble(`${words}. Your drawing is kept; trying again by itself.${said && ` It says: ${said}.`}`, { waitMs, status: response.status });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @returns {Promise<Answer>} */
export async function predict(picture, signal) {
  const started = performance.now();
  const { headers, body } = await request(`${modelPath('v1')}:predict`, {
    method: 'POST',
    body: picture,
    headers: { 'content-type': 'image/png', 'x-return-images': 'true' },
    signal,
  });
  const took = performance.now() - started;
  const answer = body?.predictions?.[0];
  if (answer?.probabilities?.length !== 10) throw new Trouble('Something answered that is not the model. Trying again by itself.');
  const version = headers.get('x-model-version') || String(body.model_version ?? '');
  return { ...answer, version, run: headers.get('x-model-run-id') ?? '', took, picture };
}

/** Whether the model answers, without a question. Raises `Trouble`. */
export async function checkReady(signal) {
  await request(`${modelPath('v2')}/ready`, { signal });
}

/**
 * Say that `label` is on the picture of `answer`, asked at random or not. Whether it is counted for the version that answered.
 *
 * Raises `Trouble`.
 */
export async function sendLabel(answer, label, isAsked, signal) {
  const feedback = {
    instances: [{ b64: await toBase64(answer.picture) }],
    labels: [label],
    model_version: answer.version,
    source: isAsked ? 'asked' : 'volunteered',
  };
  const { body } = await request(`${modelPath('v1')}:feedback`, {
    method: 'POST',
    body: JSON.stringify(feedback),
    headers: { 'content-type': 'application/json' },
    signal,
  });
  return body?.counted === 1;
}

/** @param {Blob} blob @returns {Promise<string>} */
function toBase64(blob) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.addEventListener('load', () => resolve(reader.result.split(',')[1]));
    reader.readAsDataURL(blob);
  });
}
