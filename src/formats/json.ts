import { FormatError } from "../errors.js";

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Decodes UTF-8 without a byte-order mark. Throws FormatError where the bytes are not UTF-8. */
export function decodeUtf8(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(file, "is not UTF-8 text", { cause });
  }
}

/** Parses a JSON object. Throws FormatError where the text is not JSON, or not an object. */
export function parseObject(text: string, file: string, what = "the file"): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(file, `${what} is not valid JSON: ${messageOf(cause)}`, { cause });
  }
  if (!isObject(value)) throw new FormatError(file, `${what} is not a JSON object`);
  return value;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The first key that an object inside `text` has twice, or null. `text` must be valid JSON. */
export function duplicateKey(text: string): string | null {
  const open: Set<string>[] = [];
  const structure = /["{}]/g;
  for (let match = structure.exec(text); match; match = structure.exec(text)) {
    if (match[0] === "{") {
      open.push(new Set());
    } else if (match[0] === "}") {
      open.pop();
    } else {
      const end = endOfString(text, match.index);
      structure.lastIndex = end;
      // In valid JSON a string before a colon is a key.
      const colon = /\s*:/y;
      colon.lastIndex = end;
      if (!colon.test(text)) continue;
      const key = JSON.parse(text.slice(match.index, end)) as string;
      const keys = open.at(-1);
      if (keys?.has(key)) return key;
      keys?.add(key);
    }
  }
  return null;
}

/** The index after the string that starts at `start`. No regular expression: these overflow on long strings. */
function endOfString(text: string, start: number): number {
  for (let quote = text.indexOf('"', start + 1); ; quote = text.indexOf('"', quote + 1)) {
    if (quote < 0) return text.length;
    let slashes = 0;
    while (text[quote - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return quote + 1;
  }
}

/** How a value shows in a message: short, and on one line. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/**
 * Typed access to the fields of a JSON object. Each getter throws FormatError naming the file and the field where
 * the value has the wrong type, and where it is missing and there is no fallback. A null counts as missing.
 */
export class Fields {
  constructor(
    readonly file: string,
    readonly values: Readonly<Record<string, unknown>>,
    /** The field that holds this object, with a trailing dot, or nothing at the top. */
    readonly path = "",
  ) {}

  /** The value, or undefined where it is missing or null. */
  get(name: string): unknown {
    return Object.hasOwn(this.values, name) ? (this.values[name] ?? undefined) : undefined;
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  fail(name: string, problem: string): never {
    throw new FormatError(this.file, `'${this.path}${name}' ${problem}`);
  }

  /** An integer from `least` to `most`. */
  integer(name: string, { least = 1, most = 2 ** 31 - 1, fallback }: IntegerRange = {}): number {
    const value = this.get(name);
    if (value === undefined) return this.#fallback(name, fallback);
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most) {
      this.fail(name, `must be an integer from ${least} to ${most}, got ${show(value)}`);
    }
    return value;
  }

  /** A finite number above zero. */
  positive(name: string, fallback?: number): number {
    const value = this.get(name);
    if (value === undefined) return this.#fallback(name, fallback);
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) {
      this.fail(name, `must be a number above 0, got ${show(value)}`);
    }
    return value;
  }

  /** A list of so many finite numbers above zero. */
  positives(name: string, count: number): number[] {
    const value = this.get(name);
    if (value === undefined) return this.#fallback<number[]>(name, undefined);
    if (!Array.isArray(value) || value.length !== count || !value.every((x) => Number.isFinite(x) && x > 0)) {
      const found = Array.isArray(value) ? `${value.length}: ${show(value)}` : show(value);
      this.fail(name, `must be a list of ${count} numbers above 0, got ${found}`);
    }
    return value;
  }

  boolean(name: string, fallback?: boolean): boolean {
    const value = this.get(name);
    if (value === undefined) return this.#fallback(name, fallback);
    if (typeof value !== "boolean") this.fail(name, `must be true or false, got ${show(value)}`);
    return value;
  }

  string(name: string, fallback?: string): string {
    const value = this.get(name);
    if (value === undefined) return this.#fallback(name, fallback);
    if (typeof value !== "string") this.fail(name, `must be a string, got ${show(value)}`);
    return value;
  }

  /** The object under that name, or null where it is missing. */
  object(name: string): Fields | null {
    const value = this.get(name);
    if (value === undefined) return null;
    if (!isObject(value)) this.fail(name, `must be an object, got ${show(value)}`);
    return new Fields(this.file, value, `${this.path}${name}.`);
  }

  #fallback<T>(name: string, fallback: T | undefined): T {
    if (fallback === undefined) this.fail(name, "is missing");
    return fallback;
  }
}

interface IntegerRange {
  readonly least?: number;
  readonly most?: number;
  readonly fallback?: number;
}
