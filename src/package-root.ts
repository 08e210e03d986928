import { fileURLToPath } from 'node:url';

/** Folder of this package: src/ and dist/ stand equally deep below it. */
export const PACKAGE_ROOT: string = fileURLToPath(new URL('..', import.meta.url));
