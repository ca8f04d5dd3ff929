/** Text that is HTML already. All other text is escaped where it is put in. */
export class Markup {
  constructor(readonly text: string) {}

  toString(): string {
    return this.text;
  }
}

/** What a template takes: nothing for null and false, lists item by item. */
export type Content = Markup | string | number | null | undefined | false | readonly Content[];

/**
 * A template of HTML. Values are escaped for text and for attributes in double quotes; nowhere else may they
 * stand.
 */
export function html(parts: TemplateStringsArray, ...values: readonly Content[]): Markup {
  return new Markup(parts.reduce((text, part, i) => text + render(values[i - 1]) + part));
}

function render(value: Content): string {
  if (value === null || value === undefined || value === false) return "";
  if (value instanceof Markup) return value.text;
  if (typeof value === "object") return value.map(render).join("");
  return String(value).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
