import { SettingsError } from '../errors.ts';

/**
 * How TLS is used. `verify` checks the server's certificate and host name (what pg 8 does for the URL's
 * sslmode `prefer`, `require`, `verify-ca` and `verify-full`); `no-verify` encrypts without checking.
 * The other members are paths of PEM files.
 */
export interface TlsSettings {
  readonly mode: 'disable' | 'no-verify' | 'verify';
  readonly rootCertificate?: string;
  readonly certificate?: string;
  readonly key?: string;
}

/** The parts of a database URL. */
export interface DatabaseUrl {
  /** Host name, address, or the absolute path of the folder of the server's Unix socket. */
  readonly host?: string;
  readonly port?: number;
  readonly user?: string;
  readonly password?: string;
  readonly database: string;
  readonly tls?: TlsSettings;
  /** Server settings for the session, as in libpq's `options`. */
  readonly options?: string;
  readonly applicationName?: string;
}

const EXAMPLE = 'postgres://user:password@host:5432/database';

const TLS_MODES: Readonly<Record<string, TlsSettings['mode']>> = {
  disable: 'disable',
  'no-verify': 'no-verify',
  // pg 8 treats these four as the strictest of them.
  prefer: 'verify',
  require: 'verify',
  'verify-ca': 'verify',
  'verify-full': 'verify',
};
const TLS_PARAMETERS: ReadonlySet<string> = new Set(['sslmode', 'sslrootcert', 'sslcert', 'sslkey']);

/**
 * Splits a postgres:// URL into its parts. pg gets them one by one, so that no library prints a URL whose
 * password it could not parse. A Unix socket is written as `postgres:///database?host=/folder`.
 * @param variable The environment variable or option with the URL, for messages.
 * @throws {SettingsError} that names the variable and never quotes the value.
 */
export function parseDatabaseUrl(variable: string, text: string): DatabaseUrl {
  const url = readUrl(variable, text);
  const parameters = url.searchParams;
  refuseCredentials(variable, parameters);
  const database = decode(variable, 'database name', url.pathname.replace(/^\//, ''));
  if (database === '') {
    throw new SettingsError(variable, `${variable} names no database. It must have the form ${EXAMPLE}.`);
  }
  const host = parameters.get('host') ?? decode(variable, 'host', url.hostname).replace(/^\[(.*)\]$/, '$1');
  const port = readPort(variable, url.port === '' ? parameters.get('port') : url.port);
  const user = decode(variable, 'user name', url.username);
  const password = decode(variable, 'password', url.password);
  const tls = readTls(variable, parameters);
  const options = parameters.get('options');
  const applicationName = parameters.get('application_name');
  return {
    database,
    ...(host !== '' && { host }),
    ...(port !== undefined && { port }),
    ...(user !== '' && { user }),
    ...(password !== '' && { password }),
    ...(tls !== undefined && { tls }),
    ...(options !== null && { options }),
    ...(applicationName !== null && { applicationName }),
  };
}

function readUrl(variable: string, text: string): URL {
  // libpq allows credentials without a host, for a socket that the query names. WHATWG's parser refuses that.
  const normalized = text.trim().replace(/^(postgres(?:ql)?:\/\/[^/?#]*@)\//, '$1localhost/');
  let url: URL;
  try {
    url = new URL(normalized);
  } catch {
    // No cause: its message and its input property quote the value, including the password.
    throw new SettingsError(
      variable,
      `${variable} is not a valid URL. It must have the form ${EXAMPLE}; in user and password, write characters such as @ : / # ? % percent-encoded (encodeURIComponent does it).`,
    );
  }
  if (url.protocol !== 'postgres:' && url.protocol !== 'postgresql:') {
    throw new SettingsError(
      variable,
      `${variable} does not begin with postgres://. It must have the form ${EXAMPLE}.`,
    );
  }
  if (url.hash !== '') {
    throw new SettingsError(
      variable,
      `${variable} contains a "#". If it belongs to the password, write it as %23 (encodeURIComponent does it).`,
    );
  }
  // A "/" or "?" in the password ends the host there. The rest of the password would be shown as the database's name.
  if (`${url.pathname}${url.search}`.includes('@')) {
    throw new SettingsError(
      variable,
      `${variable} contains an "@" after the host. In user and password, write characters such as / and ? percent-encoded (encodeURIComponent does it); elsewhere write an "@" as %40.`,
    );
  }
  return url;
}

/** If these were ignored, the server would refuse the connection with a misleading message. */
function refuseCredentials(variable: string, parameters: URLSearchParams): void {
  const found = ['user', 'password'].find((name) => parameters.has(name));
  if (found === undefined) return;
  throw new SettingsError(
    variable,
    `${variable} gives the ${found} as a parameter. Write it before the host: ${EXAMPLE}.`,
  );
}

function readPort(variable: string, text: string | null): number | undefined {
  if (text === null) return undefined;
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535) {
    throw new SettingsError(variable, `The port in ${variable} is not a number from 1 to 65535. Correct it.`);
  }
  return port;
}

function readTls(variable: string, parameters: URLSearchParams): TlsSettings | undefined {
  // If a mistyped one were ignored, the connection would lack the protection that it asks for.
  const unknown = [...parameters.keys()].find((key) => key.startsWith('ssl') && !TLS_PARAMETERS.has(key));
  if (unknown !== undefined) {
    throw new SettingsError(
      variable,
      `${variable} has the unknown parameter "${unknown}". Use ${[...TLS_PARAMETERS].join(', ')}, or remove it.`,
    );
  }
  const name = parameters.get('sslmode');
  const mode = name === null ? undefined : TLS_MODES[name];
  if (name !== null && mode === undefined) {
    throw new SettingsError(
      variable,
      `sslmode in ${variable} must be one of ${Object.keys(TLS_MODES).join(', ')}. Correct it.`,
    );
  }
  const rootCertificate = parameters.get('sslrootcert');
  const certificate = parameters.get('sslcert');
  const key = parameters.get('sslkey');
  if ((certificate === null) !== (key === null)) {
    const [given, missing] = key === null ? ['sslcert', 'sslkey'] : ['sslkey', 'sslcert'];
    throw new SettingsError(variable, `${variable} has ${given} without ${missing}. Name both files.`);
  }
  if (mode === undefined && rootCertificate === null && certificate === null) return undefined;
  return {
    mode: mode ?? 'verify',
    ...(rootCertificate !== null && { rootCertificate }),
    ...(certificate !== null && { certificate }),
    ...(key !== null && { key }),
  };
}

function decode(variable: string, part: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new SettingsError(
      variable,
      `The ${part} in ${variable} contains a "%" that is not followed by two hexadecimal digits. Write a literal % as %25.`,
    );
  }
}
