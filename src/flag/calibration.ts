import { type Fields, messageOf } from "../formats/json.js";
import type { Example } from "../formats/jsonl.js";
import { digestOf } from "../train/fingerprint.js";
import { type Decision, formatDecision, parseDecision } from "./decision.js";

/** A decision whose level was fitted to benign conversations; see `calibrate.ts`. */
export interface Calibration {
  readonly decision: Decision;
  /** How the level came about; null where the file does not tell. */
  readonly fit: CalibrationFit | null;
}

/** What a calibrated level promises, and of which data it was taken. */
export interface CalibrationFit {
  /** α: of conversations like those, at most this share is flagged falsely. */
  readonly falsePositiveRate: number;
  /** Benign conversations that the level was fitted to. */
  readonly examples: number;
  /** What `dataDigest` makes of them, to know them again. */
  readonly data: string;
}

/** The digest that a calibration knows its examples by. */
export function dataDigest(examples: readonly Example[]): Promise<string> {
  return digestOf(JSON.stringify(examples));
}

/** A calibration as `oriflamme.json` has it. */
export interface CalibrationFacts {
  readonly decision: string;
  readonly fit: CalibrationFit | null;
}

/** A calibration for `oriflamme.json`, which tells its decision as the command line does. */
export function calibrationFacts({ decision, fit }: Calibration): CalibrationFacts {
  return { decision: formatDecision(decision), fit };
}

/**
 * Reads a calibration from `oriflamme.json`. Version 0.1 knew a threshold only.
 * @throws FormatError naming the file and the field
 */
export function readCalibration(fields: Fields): Calibration {
  if (fields.has("threshold")) {
    return { decision: { kind: "threshold", level: fields.positive("threshold") }, fit: null };
  }
  const fit = fields.object("fit");
  return {
    decision: readDecision(fields),
    fit: fit && {
      falsePositiveRate: fit.positive("falsePositiveRate"),
      examples: fit.integer("examples"),
      data: fit.string("data"),
    },
  };
}

function readDecision(fields: Fields): Decision {
  const text = fields.string("decision");
  try {
    return parseDecision(text);
  } catch (error) {
    return fields.fail("decision", `is none: ${messageOf(error)}`);
  }
}
