// Runs the scenario in a process of its own and prints the result: `node process.mjs OPTIONS EXPECTED`. The process
// must end by itself.

import { compute } from "./scenario.mjs";

const [options, expected] = process.argv.slice(2).map((text) => JSON.parse(text));
console.log(JSON.stringify(await compute(options, expected)));
