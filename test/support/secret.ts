import { inspect } from 'node:util';

/** A password in which any four consecutive characters are found nowhere else in the output. */
export const SECRET = `Zq§7@Wv/%x#J?K:w&V=+j"'\\<9>~Q`;

/** The password encoded for a URL. */
export const ENCODED_SECRET = encodeURIComponent(SECRET);

/** Any four consecutive characters of the password, plain and in all encodings of URLs. */
const PIECES: ReadonlySet<string> = new Set(
  [SECRET, ENCODED_SECRET, encodeURI(SECRET), withPassword('postgres://user@host/database', SECRET)].flatMap(
    (form) => piecesOf(passwordIn(form)),
  ),
);

/** The pieces of the password in a text. */
export function leaksIn(text: string): readonly string[] {
  return [...PIECES].filter((piece) => text.includes(piece));
}

/** Everything that a log of the value could print, including the causes and other members of an error. */
export function everythingIn(value: unknown): string {
  const texts = [inspect(value, { depth: Number.POSITIVE_INFINITY, maxStringLength: null }), String(value)];
  for (let error = value; error instanceof Error; error = error.cause) {
    texts.push(error.message, error.stack ?? '', JSON.stringify(error));
  }
  return texts.join('\n');
}

/** The URL with another password. */
export function withPassword(url: string, password: string): string {
  const other = new URL(url);
  other.password = password;
  return other.href;
}

function passwordIn(form: string): string {
  return form.startsWith('postgres://') ? new URL(form).password : form;
}

function piecesOf(text: string): readonly string[] {
  return Array.from({ length: text.length - 3 }, (_, start) => text.slice(start, start + 4));
}
