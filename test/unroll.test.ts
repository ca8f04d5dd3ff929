import { describe, expect, it } from "vitest";
import { unroll } from "../scripts/asc.mjs";

/** A loop over `name` of so many steps, as the kernels write it. */
function loop(name: string, count: number, body: string): string {
  return `for (let ${name}: usize = 0; unrolled(${name} < ${count}); ${name}++) {${body}}`;
}

/** What remains of a source when all space is taken from it. */
function dense(source: string): string {
  return source.replace(/\s+/g, "");
}

describe("unrolled loops", () => {
  it("become copies with the index as a literal", () => {
    expect(dense(unroll(`a;${loop("step", 3, " f(p, 4 * step); ")}b;`))).toBe(
      "a;{f(p,4*0);}{f(p,4*1);}{f(p,4*2);}b;",
    );
  });

  it("leave names alone that only contain the index", () => {
    expect(dense(unroll(loop("i", 2, "if (i) misc(i2, pi, i);")))).toBe(
      "{if(0)misc(i2,pi,0);}{if(1)misc(i2,pi,1);}",
    );
  });

  it("may lie in one another and follow on one another", () => {
    const inner = loop("j", 2, "g(i, j);");
    expect(dense(unroll(`${loop("i", 2, inner)} h(); ${loop("i", 1, "k(i);")}`))).toBe(
      "{{g(0,0);}{g(0,1);}}{{g(1,0);}{g(1,1);}}h();{k(0);}",
    );
  });

  it("keep every line's number, and comments to their own line", () => {
    const source = `one\n${loop("i", 2, "\n  f(i); // why\n  g();\n")}\nlast`;
    const lines = unroll(source).split("\n");
    expect(lines).toHaveLength(source.split("\n").length);
    expect(lines.at(-1)).toBe("last");
    expect(dense(unroll(source))).toBe("one{f(0);//whyg();}{f(1);g();}last");
  });

  it("are told apart from other loops", () => {
    const source = "for (let i: usize = 0; i < 8; i++) { f(i); }";
    expect(unroll(source)).toBe(source);
  });

  it("must be closed", () => {
    expect(() => unroll(loop("i", 2, "{").slice(0, -1))).toThrow(SyntaxError);
  });
});
