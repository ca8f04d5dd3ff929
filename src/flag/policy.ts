/** What happens when the flag is raised. */
export type Policy =
  /** The generation ends; the token at hand is not taken. */
  | { readonly kind: "stop" }
  /** The generation ends, and this text stands for the whole response. */
  | { readonly kind: "replace"; readonly text: string }
  /** The generation goes on; steps say where the flag was raised. */
  | { readonly kind: "annotate" };

/**
 * Reads a policy as the command line writes it: `stop`, `annotate`, `replace=TEXT`.
 * @throws RangeError that names the text
 */
export function parsePolicy(text: string): Policy {
  if (text === "stop" || text === "annotate") return { kind: text };
  if (text.startsWith("replace=")) return { kind: "replace", text: text.slice("replace=".length) };
  throw new RangeError(`policy must be stop, annotate or replace=TEXT, got '${text}'`);
}
