import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

/**
 * The bill of materials (SBOM, CycloneDX) of the run-time dependencies, as the lock file has them for all platforms.
 * npm's `--omit dev` also omits what development dependencies share, such as pg. So npm is given a manifest without
 * development dependencies.
 */
function readSbom(): string {
  const parent = mkdtempSync(join(tmpdir(), 'filestore-sbom-'));
  try {
    // npm names the component after its folder.
    const folder = join(parent, 'filestore');
    mkdirSync(folder);
    const manifest = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, devDependencies: {} }));
    copyFileSync(join(PACKAGE_ROOT, 'package-lock.json'), join(folder, 'package-lock.json'));
    const npm = (command: string, ...options: readonly string[]) =>
      execFileSync('npm', [command, '--package-lock-only', ...options], { cwd: folder, encoding: 'utf8' });
    npm('install', '--offline', '--ignore-scripts');
    return npm('sbom', '--sbom-format', 'cyclonedx');
  } finally {
    rmSync(parent, { recursive: true, force: true });
  }
}

process.stdout.write(readSbom());
