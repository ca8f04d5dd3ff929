import { FormatError } from "../errors.js";
import { openFiles } from "../formats/files.js";
import { isObject, show } from "../formats/json.js";

/**
 * Reads a JSON object of settings. Keys and types must be those of `defaults`; nested objects too. A list takes
 * texts and numbers.
 * @throws FormatError naming the file and the field
 */
export async function readConfig<T extends object>(
  path: string | undefined,
  defaults: T,
): Promise<Partial<T>> {
  if (path === undefined) return {};
  const files = await openFiles(path);
  if (files.main === null) throw new FormatError(path, "is a folder, expected a file of JSON");
  const text = await files.text(files.main);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(path, `is not JSON (${(cause as Error).message})`, { cause });
  }
  if (!isObject(value)) throw new FormatError(path, `must hold a JSON object, got ${show(value)}`);
  expectLike(path, "", value, defaults);
  return value as Partial<T>;
}

function expectLike(path: string, prefix: string, value: Record<string, unknown>, defaults: object): void {
  for (const [key, given] of Object.entries(value)) {
    const name = prefix + key;
    if (!Object.hasOwn(defaults, key)) {
      throw new FormatError(path, `'${name}' is no setting; there are ${Object.keys(defaults).join(", ")}`);
    }
    const known = (defaults as Record<string, unknown>)[key];
    const isList = Array.isArray(given) && given.every((item) => ["string", "number"].includes(typeof item));
    if (Array.isArray(known)) {
      if (!isList) throw new FormatError(path, `'${name}' must be a list of names, got ${show(given)}`);
    } else if (isObject(known)) {
      if (!isObject(given)) throw new FormatError(path, `'${name}' must be an object, got ${show(given)}`);
      expectLike(path, `${name}.`, given, known);
    } else if (typeof given !== typeof known && !(key === "targets" && isList)) {
      throw new FormatError(path, `'${name}' must be a ${typeof known}, got ${show(given)}`);
    }
  }
}
