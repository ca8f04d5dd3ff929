import { createHash } from "node:crypto";
import type { Example } from "../formats/jsonl.js";

/** SHA-256 of examples as JSON, in hexadecimal digits: what a calibration knows its data by. */
export function fingerprint(examples: readonly Example[]): string {
  return createHash("sha256").update(JSON.stringify(examples)).digest("hex");
}
