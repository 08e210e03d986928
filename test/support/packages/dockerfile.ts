import { execFile, execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { PACKAGE_ROOT } from '../../../src/package-root.ts';

/** One line of a Dockerfile. */
export interface Instruction {
  readonly name: string;
  readonly words: string;
}

/** What the steps of a Dockerfile leave, without a container. */
export interface BuiltFolder {
  /** The root folder of the last stage; it has no file of the base image. */
  readonly root: string;
  /** The working directory in it. */
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
}

interface Stage extends BuiltFolder {
  readonly name: string;
}

/** The instructions of the Dockerfile, which has no continued lines. */
export function readDockerfile(): readonly Instruction[] {
  const text = readFileSync(join(PACKAGE_ROOT, 'Dockerfile'), 'utf8');
  return [...text.matchAll(/^([A-Z]+) (.*)$/gm)].map(([, name = '', words = '']) => ({ name, words }));
}

/** The entries of the folder that .dockerignore, which begins by ignoring all of them, lets in. */
export function contextEntries(): readonly string[] {
  const [ignored, ...lines] = readFileSync(join(PACKAGE_ROOT, '.dockerignore'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (ignored !== '*') throw new Error('.dockerignore does not begin by ignoring everything.');
  return lines.map((line) => line.replace(/^!/, ''));
}

/**
 * Runs the steps of the Dockerfile with the programs of this machine, each stage in a separate folder.
 * @param parent An empty folder.
 */
export async function buildFolder(parent: string): Promise<BuiltFolder> {
  const stages: Stage[] = [];
  for (const { name, words } of readDockerfile()) {
    if (name === 'FROM') {
      const root = join(parent, String(stages.length));
      mkdirSync(root);
      const stage = / AS (\w+)$/.exec(words)?.[1] ?? '';
      stages.push({ name: stage, root, cwd: root, env: {}, entrypoint: [], command: [] });
      continue;
    }
    const stage = stages.pop();
    if (stage === undefined) throw new Error(`"${name} ${words}" is before the first FROM.`);
    stages.push(await runInstruction(stage, stages, { name, words }));
  }
  return stages.at(-1) ?? Promise.reject(new Error('The Dockerfile has no stage.'));
}

async function runInstruction(
  stage: Stage,
  before: readonly Stage[],
  { name, words }: Instruction,
): Promise<Stage> {
  switch (name) {
    case 'WORKDIR': {
      const cwd = join(stage.root, words);
      mkdirSync(cwd, { recursive: true });
      return { ...stage, cwd };
    }
    case 'COPY':
      copy(stage, before, words.split(' '));
      return stage;
    case 'RUN': {
      const env = { PATH: process.env.PATH, HOME: process.env.HOME, ...stage.env };
      await promisify(execFile)('sh', ['-euc', words], { cwd: stage.cwd, env });
      return stage;
    }
    case 'ENV': {
      const [variable = '', value = ''] = words.split('=');
      return { ...stage, env: { ...stage.env, [variable]: value } };
    }
    case 'ENTRYPOINT':
      return { ...stage, entrypoint: JSON.parse(words) };
    case 'CMD':
      return { ...stage, command: JSON.parse(words) };
    case 'USER':
      return stage;
    default:
      throw new Error(`This test cannot run "${name} ${words}".`);
  }
}

function copy({ root, cwd }: Stage, before: readonly Stage[], words: readonly string[]): void {
  const target = words.at(-1) ?? '';
  const to = target.startsWith('/') ? join(root, target) : join(cwd, target);
  const [option = '', from = ''] = words;
  if (option.startsWith('--from=')) {
    const source = before.find(({ name }) => option === `--from=${name}`);
    if (source === undefined) throw new Error(`No stage is called as "${option}" says.`);
    cpSync(join(source.root, from), to, { recursive: true, verbatimSymlinks: true });
    return;
  }
  const context = contextEntries();
  const wanted = words.slice(0, -1).flatMap((word) => (word === '.' ? context : [word]));
  const here = readdirSync(PACKAGE_ROOT);
  for (const entry of wanted) {
    if (!context.includes(entry) || !here.includes(entry)) throw new Error(`${entry} is not in the context.`);
    cpSync(join(PACKAGE_ROOT, entry), join(to, entry), { recursive: true });
    // As in a checkout of a user whose new files are closed to others: an image must not depend on that.
    execFileSync('chmod', ['-R', 'go-rwx', join(to, entry)]);
  }
}
