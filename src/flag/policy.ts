/** What happens when the flag is raised. */
export type Policy =
  /** The generation ends; the token at hand is not taken. */
  | { readonly kind: "stop" }
  /** The generation ends, and this text stands for the whole response. */
  | { readonly kind: "replace"; readonly text: string }
  /**
   * The generation goes on; steps say where the flag was raised. Where it is first raised the flag's token is put
   * into the context, as in training: the model goes on as it would have. With `shadow` it never is, and the
   * model runs on where training has not been (before a flag only the flag itself is trained).
   */
  | { readonly kind: "annotate"; readonly shadow?: boolean };

/**
 * Reads a policy as the command line writes it: `stop`, `annotate`, `annotate=shadow`,
 * `replace=TEXT`.
 * @throws RangeError that names the text
 */
export function parsePolicy(text: string): Policy {
  if (text === "stop" || text === "annotate") return { kind: text };
  if (text === "annotate=shadow") return { kind: "annotate", shadow: true };
  if (text.startsWith("replace=")) return { kind: "replace", text: text.slice("replace=".length) };
  throw new RangeError(`policy must be stop, annotate, annotate=shadow or replace=TEXT, got '${text}'`);
}
