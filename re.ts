import { readFileSync } from 'node:fs';
import { writeReport } from './bench/designs/report-files.ts';
const f = process.argv[2]!; console.log(writeReport(f, JSON.parse(readFileSync(f+'/report.json','utf8')), process.argv[3]));
