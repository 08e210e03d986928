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

/** Characters with a meaning in a URL, between parts of a password. */
const SPECIAL = [
  ...['/', '?', '#', '%', '%4', '@', ':', '&', '=', '+', ' ', '\\', '[', ']', '"', "'", '<', '^', '|', '{'],
  ...[
    '@/',
    '/@',
    '@?',
    '?@',
    '@x/',
    '@x/y?',
    '@x/y?ssl',
    '@x/y?sslmode=',
    '@x/y?sslrootcert=/',
    '@x:1/y?a=',
    '/#',
  ],
];

/** URLs with a mistyped password, with an address where no server listens. */
export function mistypedUrls(): readonly string[] {
  const rest = '@127.0.0.1:1/app';
  return [
    ...[SECRET, encodeURI(SECRET), ENCODED_SECRET].flatMap((password) => [
      `postgres://app:${password}${rest}`,
      `postgres://${password}${rest}`,
      `postgres://app:${password}`,
      `postgres://app:${password}@`,
      `postgres:/app:${password}${rest}`,
      `postgres//app:${password}${rest}`,
      `app:${password}${rest}`,
      `mysql://app:${password}${rest}`,
      `postgres://app:${password}@127.0.0.1:port/app`,
      `postgres://app:${password}@127.0.0.1:99999/app`,
      `postgres://app:${password}@127.0.0.1:1`,
      `postgres://app@127.0.0.1:1/app?password=${password}`,
      `postgres://app@127.0.0.1:1/app?user=app;password=${password}`,
      `postgres://app@127.0.0.1:1/app?sslmode=require;password=${password}`,
      `host=127.0.0.1 port=1 user=app password=${password} dbname=app`,
    ]),
    // A valid port, and a character that ends it.
    ...SPECIAL.flatMap((special) =>
      [SECRET, ENCODED_SECRET].map((password) => `postgres://app:12${special}${password}${rest}`),
    ),
  ];
}
