import { ENCODED_SECRET, SECRET } from './secret.ts';

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
