import { FormatError } from "../errors.js";
import { openFiles } from "../formats/files.js";

/**
 * Reads a JSON object of settings. Keys and types must be those of `defaults`; nested objects too.
 * @throws FormatError naming the file and the field
 */
export async function readConfig<T extends object>(path: string | undefined, defaults: T): Promise<Partial<T>> {
  if (path === undefined) return {};
  const files = await openFiles(path);
  const text = await files.text(files.main ?? "");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(path, `is not JSON (${(cause as Error).message})`, { cause });
  }
  expectLike(path, "", value, defaults);
  return value as Partial<T>;
}

function expectLike(path: string, prefix: string, value: unknown, defaults: object): void {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FormatError(path, `${prefix || "the file"} must be an object`);
  }
  for (const [key, given] of Object.entries(value)) {
    const name = prefix + key;
    const known = (defaults as Record<string, unknown>)[key];
    if (known === undefined) {
      throw new FormatError(path, `'${name}' is no setting; there are ${Object.keys(defaults).join(", ")}`);
    }
    if (typeof known === "object" && known !== null) expectLike(path, `${name}.`, given, known);
    else if (typeof given !== typeof known && !(key === "targets" && Array.isArray(given))) {
      throw new FormatError(path, `'${name}' must be a ${typeof known}, got ${JSON.stringify(given)}`);
    }
  }
}
