import { inspect } from 'node:util';

/** A password of which every four characters in a row have one that nothing else has there. */
export const SECRET = `Zq§7@Wv/%x#J?K:w&V=+j"'\\<9>~Q`;

/** As it is written into a URL. */
export const ENCODED_SECRET = encodeURIComponent(SECRET);

/** Every four characters in a row, of the password as it is and in the ways that URLs write it. */
const PIECES: ReadonlySet<string> = new Set(
  [SECRET, ENCODED_SECRET, encodeURI(SECRET), withPassword('postgres://user@host/database', SECRET)].flatMap(
    (form) => piecesOf(passwordIn(form)),
  ),
);

/** The pieces of the password that a text has. */
export function leaksIn(text: string): readonly string[] {
  return [...PIECES].filter((piece) => text.includes(piece));
}

/** Everything that somebody who logs a value may get to print, an error's causes and its further members included. */
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
