import type { BigIntStats } from 'node:fs';

/** Whether a file system has birth times, by its root. Without one, Node.js gives 0 or the time of the last change. */
export const hasBirthTimes = (root: BigIntStats) =>
  root.birthtimeNs !== 0n && root.birthtimeNs !== root.ctimeNs;

/** The identity of an object on a local disk, of `fs.lstat(path, { bigint: true })`. */
export function backendIdentity(stat: BigIntStats, withBirthTime: boolean): string {
  const text = (value: bigint) => value.toString(36);
  if (withBirthTime) return `${text(stat.ino)}-${text(stat.birthtimeNs)}`;
  // A pair must then also agree in what a rename does not change.
  const moment = text(stat.mtimeNs);
  return stat.isDirectory()
    ? `${text(stat.ino)}--${moment}`
    : `${text(stat.ino)}--${text(stat.size)}-${moment}`;
}
