/** The source with its unrolled loops written out, on as many lines. @throws SyntaxError where one is not closed */
export function unroll(source: string): string;
