import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { SettingsError } from '../errors.ts';
import type { TlsSettings } from './database-url.ts';

/**
 * TLS in the form of Node's tls.connect.
 * @throws {SettingsError} naming the parameter of the URL whose file is missing or has other content.
 */
export function tlsConfig(tls: TlsSettings, host: string | undefined) {
  return {
    rejectUnauthorized: tls.mode === 'verify',
    // An older pg, as a dependency of graphile-migrate, does not pass an IP address to TLS. Node would then check the
    // certificate for "localhost".
    ...(host !== undefined && isIP(host) !== 0 && { host }),
    ...(tls.rootCertificate !== undefined && { ca: readCertificate('sslrootcert', tls.rootCertificate) }),
    ...(tls.certificate !== undefined && { cert: readCertificate('sslcert', tls.certificate) }),
    ...(tls.key !== undefined && { key: readKey('sslkey', tls.key) }),
  };
}

// Node silently ignores a CA file that it cannot read, and then trusts no server.
function readCertificate(parameter: string, path: string): string {
  const pem = readPem(parameter, path);
  parse(parameter, path, 'a certificate', () => new X509Certificate(pem));
  return pem;
}

function readKey(parameter: string, path: string): string {
  const pem = readPem(parameter, path);
  parse(parameter, path, 'a private key without a passphrase', () => createPrivateKey(pem));
  return pem;
}

function parse(parameter: string, path: string, what: string, work: () => unknown): void {
  try {
    work();
  } catch (cause) {
    throw new SettingsError(
      parameter,
      `The database URL's ${parameter} names a file that does not contain ${what} in PEM form: ${path}. Name another file, or remove the parameter.`,
      { cause },
    );
  }
}

function readPem(parameter: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SettingsError(
      parameter,
      `The database URL's ${parameter} names a file that cannot be read: ${path}. Correct the path, or remove the parameter.`,
      { cause },
    );
  }
}
