/** Asks programs and servers: Node only, imported by the command line alone. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { parseArgsStringToArgv } from "string-argv";
import { FormatError } from "../errors.js";
import { isObject, messageOf, show } from "../formats/json.js";
import type { Conversation } from "./conversations.js";
import type { Detector } from "./detector.js";

/** What an external classifier is sent of a conversation. */
export interface ClassifierInput {
  readonly index: number;
  readonly prompt: string;
  readonly response: string;
}

/** How an external classifier is asked. */
export interface ClassifierOptions {
  /** A command line, or the address of a server: http:// or https://. */
  readonly target: string;
  /** The score from which it takes a conversation for harmful. */
  readonly threshold: number;
  /** Most seconds without an answer. */
  readonly timeout: number;
}

/** Conversations that a server gets at once. */
const BATCH = 32;

/**
 * Any other guard: a program that reads JSON Lines `{"index","prompt","response"}` on stdin and writes
 * `{"index","score"}`, in any order; or a server that is sent a JSON array of the first and answers with one of the
 * second.
 */
export function externalClassifier(options: ClassifierOptions): Detector {
  const { target, threshold } = options;
  const isServer = /^https?:\/\//.test(target);
  return {
    name: "classifier",
    rule: `score >= ${threshold}`,
    async read(conversations) {
      const inputs = conversations.map(toInput);
      const scores = isServer ? await askServer(inputs, options) : await askProgram(inputs, options);
      return scores.map((score) => ({ score, flagged: score >= threshold, first: null }));
    },
  };
}

function toInput({ prompt, response }: Conversation, index: number): ClassifierInput {
  return { index, prompt, response };
}

/** Scores by index, as answers come in. */
class Answers {
  readonly #scores: number[];
  #missing: number;

  constructor(
    readonly target: string,
    count: number,
  ) {
    this.#scores = new Array<number>(count).fill(Number.NaN);
    this.#missing = count;
  }

  /** @throws FormatError for what is no answer to anything that was asked, or the second to it */
  take(answer: unknown): void {
    const { index, score } = isObject(answer) ? answer : {};
    if (typeof index !== "number" || typeof score !== "number" || !Number.isFinite(score)) {
      throw new FormatError(
        this.target,
        `answered ${show(answer)}, expected {"index", "score"} with numbers`,
      );
    }
    const known = this.#scores[index];
    if (known === undefined)
      throw new FormatError(this.target, `answered index ${index}, which was not asked`);
    if (!Number.isNaN(known)) throw new FormatError(this.target, `answered index ${index} twice`);
    this.#scores[index] = score;
    this.#missing--;
  }

  /** @throws FormatError where answers are missing */
  all(): number[] {
    if (this.#missing > 0) {
      const first = this.#scores.findIndex(Number.isNaN);
      throw new FormatError(
        this.target,
        `gave no score for ${this.#missing} inputs, the first is index ${first}`,
      );
    }
    return this.#scores;
  }
}

async function askServer(
  inputs: readonly ClassifierInput[],
  { target, timeout }: ClassifierOptions,
): Promise<number[]> {
  const answers = new Answers(target, inputs.length);
  for (let from = 0; from < inputs.length; from += BATCH) {
    const list = await post(target, inputs.slice(from, from + BATCH), timeout);
    if (!Array.isArray(list)) throw new FormatError(target, `answered ${show(list)}, expected an array`);
    for (const answer of list) answers.take(answer);
  }
  return answers.all();
}

async function post(target: string, body: readonly ClassifierInput[], timeout: number): Promise<unknown> {
  try {
    const response = await fetch(target, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(1000 * timeout),
    });
    if (!response.ok) throw new FormatError(target, `answered ${response.status} ${response.statusText}`);
    return await response.json();
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    if (cause instanceof Error && cause.name === "TimeoutError") throw silent(target, timeout);
    // `fetch failed` alone tells nothing; its cause does.
    const reason = cause instanceof Error && cause.cause ? messageOf(cause.cause) : messageOf(cause);
    throw new FormatError(target, `gave no answer: ${reason}`, { cause });
  }
}

function silent(target: string, timeout: number): FormatError {
  return new FormatError(target, `gave no answer for ${timeout} seconds`);
}

async function askProgram(
  inputs: readonly ClassifierInput[],
  { target, timeout }: ClassifierOptions,
): Promise<number[]> {
  const [command = "", ...args] = parseArgsStringToArgv(target);
  const controller = new AbortController();
  const { signal } = controller;
  // No shell, so that it is the program that is ended, not what started it.
  const child = spawn(command, args, { signal, killSignal: "SIGKILL" });
  const ended = once(child, "close");
  // Awaited below, unless an answer is wrong before.
  ended.catch(() => {});
  // A program may end before it has read everything; its exit code tells whether that was meant.
  child.stdin.on("error", () => {});
  Readable.from(inputs.map(lineOf)).pipe(child.stdin);
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint = `${complaint}${text}`.slice(-MOST_COMPLAINT);
  });
  const timer = setTimeout(() => controller.abort(), 1000 * timeout);
  const answers = new Answers(target, inputs.length);
  try {
    for await (const line of createInterface({ input: child.stdout, signal })) {
      timer.refresh();
      if (line.trim() !== "") answers.take(parsed(target, line));
    }
    const [code, endedBy] = await ended;
    if (code !== 0) {
      const how = endedBy ? `was ended by ${endedBy}` : `ended with code ${code}`;
      const last = complaint.trim().split("\n").at(-1) ?? "";
      throw new FormatError(target, last === "" ? how : `${how}: ${last}`);
    }
    return answers.all();
  } catch (cause) {
    if (signal.aborted) throw silent(target, timeout);
    if (cause instanceof FormatError) throw cause;
    throw new FormatError(target, `does not start: ${messageOf(cause)}`, { cause });
  } finally {
    clearTimeout(timer);
    controller.abort();
  }
}

/** A line of JSON. Node's readline takes two characters of Unicode for ends of lines that JSON leaves as they are. */
function lineOf(input: ClassifierInput): string {
  const text = JSON.stringify(input).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029");
  return `${text}\n`;
}

/** Characters of a program's stderr that are kept for a message. */
const MOST_COMPLAINT = 2000;

function parsed(target: string, line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new FormatError(target, `wrote what is no JSON: ${show(line)}`, { cause });
  }
}
