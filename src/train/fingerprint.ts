import type { Parameters } from "../tensor.js";

/** One fact about a run. A digest begins with `sha256:`. */
export type Fact = string | number | boolean | null;

/** What a run is made of, by name: settings as they are, data and weights by their digests. */
export type Fingerprint = Readonly<Record<string, Fact>>;

const DIGEST = "sha256:";
/** Differences that a message names; the others it counts. */
const MOST_NAMED = 3;

/** Settings as facts: those of nested objects under dotted names, lists as JSON, what is undefined left out. */
export function factsOf(settings: object, prefix = ""): Record<string, Fact> {
  const facts: Record<string, Fact> = {};
  for (const [key, value] of Object.entries(settings)) {
    const name = prefix + key;
    if (Array.isArray(value)) facts[name] = JSON.stringify(value);
    else if (typeof value === "object" && value !== null) Object.assign(facts, factsOf(value, `${name}.`));
    // JSON has no infinity.
    else if (typeof value === "number" && !Number.isFinite(value)) facts[name] = String(value);
    else if (value !== undefined) facts[name] = value;
  }
  return facts;
}

/** The SHA-256 of bytes, or of a text's UTF-8, as a fact. */
export async function digestOf(data: string | BufferSource): Promise<string> {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return DIGEST + Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The digest of named tensors as they are stored: of one digest each, so that never more than one is on the host. */
export async function digestOfParameters(parameters: Parameters): Promise<string> {
  const digests: string[] = [];
  for (const [name, tensor] of parameters.entries()) {
    digests.push(`${name} ${await digestOf(await tensor.backend.read(tensor))}`);
  }
  return digestOf(digests.join("\n"));
}

/** What differs between two runs, as in `lr was 0.01 and is 0.02; harmful data differ`; null where nothing does. */
export function difference(was: Fingerprint, is: Fingerprint): string | null {
  const names = [...new Set([...Object.keys(was), ...Object.keys(is)])];
  const different = names.filter((name) => was[name] !== is[name]);
  if (different.length === 0) return null;
  const named = different.slice(0, MOST_NAMED).map((name) => {
    if (String(was[name] ?? is[name]).startsWith(DIGEST)) return `${name} differ`;
    return `${name} was ${was[name] ?? "not set"} and is ${is[name] ?? "not set"}`;
  });
  const more = different.length - named.length;
  return `${named.join("; ")}${more > 0 ? `; and ${more} more` : ""}`;
}
