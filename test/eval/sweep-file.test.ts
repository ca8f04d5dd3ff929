import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/errors.js";
import { readSweep, type SweepFile, writeSweep } from "../../src/eval/sweep-file.js";
import { temporaryFolder } from "../formats/helpers.js";
import { syntheticEvaluation } from "./report-fixture.js";

const { run, data, sweep } = syntheticEvaluation();
if (!sweep) throw new Error("no sweep");
const settings = { steps: 20, decay: "cosine", "harmful data": "sha256:ab" };
const file: SweepFile = { version: 1, run, settings, data, sweep };
const written = async (change: object = {}) => {
  const folder = await temporaryFolder();
  await writeSweep(folder, { ...file, ...change });
  return folder;
};

describe("a sweep's file", () => {
  it("brings its points back", async () => {
    expect(await readSweep(await written(), settings, sweep.parameters)).toEqual(sweep);
  });

  it("is made with its folder, and replaces its older self", async () => {
    const folder = join(await temporaryFolder(), "deep", "in");
    await writeSweep(folder, { ...file, sweep: { ...sweep, points: [] } });
    await writeSweep(folder, file);
    expect(JSON.parse(await readFile(join(folder, "sweep.json"), "utf8"))).toEqual(file);
  });

  it("that is not there has no points", async () => {
    expect(await readSweep(await temporaryFolder(), settings, ["lr"])).toEqual({
      ...{ parameters: ["lr"], points: [], failed: [] },
    });
  });

  it.each<[object, RegExp]>([
    [{ steps: 21 }, /is of another sweep: steps was 20 and is 21$/],
    [{ "harmful data": "sha256:cd" }, /is of another sweep: harmful data differ$/],
    [{ decay: "constant", rank: 3 }, /decay was cosine and is constant; rank was not set and is 3$/],
  ])("of other settings is refused: %j", async (change, message) => {
    const reading = readSweep(await written(), { ...settings, ...change }, sweep.parameters);
    await expect(reading).rejects.toThrow(FormatError);
    await expect(reading).rejects.toThrow(message);
  });

  it("of other parameters is refused", async () => {
    await expect(readSweep(await written(), settings, ["ce", "benign"])).rejects.toThrow(
      /sweep\.json: is of another sweep: it varies benign, ce, this one ce, benign$/,
    );
  });

  const [point] = sweep.points;
  it.each<[object, RegExp]>([
    [{ version: 2 }, /'version' must be 1/],
    [{ sweep: 3 }, /'sweep' must be an object/],
    [{ sweep: undefined }, /'sweep' is missing/],
    [{ settings: undefined }, /'settings' is missing/],
    [{ sweep: { ...sweep, points: {} } }, /'sweep\.points' must be a list/],
    [{ sweep: { ...sweep, points: [7] } }, /'sweep\.points\.0' must be an object, got 7/],
    [
      { sweep: { ...sweep, points: [point, { ...point, values: [1] }] } },
      /'sweep\.points\.1\.values' must be 2 numbers/,
    ],
    [
      { sweep: { ...sweep, points: [{ ...point, auroc: null }] } },
      /'sweep\.points\.0\.auroc' must be a number/,
    ],
    [
      { sweep: { ...sweep, points: [{ ...point, seed: -1 }] } },
      /'sweep\.points\.0\.seed' must be an integer/,
    ],
    [{ sweep: { ...sweep, failed: [{ values: [1, 1], seed: 0 }] } }, /'sweep\.failed\.0\.reason' is missing/],
  ])("with a bad field names it: %j", async (change, message) => {
    const reading = readSweep(await written(change), settings, sweep.parameters);
    await expect(reading).rejects.toThrow(FormatError);
    await expect(reading).rejects.toThrow(message);
  });

  it("that is no JSON is named", async () => {
    const folder = await written();
    await writeFile(join(folder, "sweep.json"), "{");
    await expect(readSweep(folder, settings, sweep.parameters)).rejects.toThrow(
      /sweep\.json: .* is not valid JSON/,
    );
  });
});
