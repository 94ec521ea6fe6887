// `by_hyparquet` of the tests of the readers: a question in, JSON out, numbers of 64 bits as strings.

import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const load = (file) => import(pathToFileURL(`${process.argv[2]}/${file}`))
const { asyncBufferFromFile, parquetMetadataAsync, parquetQuery, parquetReadObjects } = await load('hyparquet/src/node.js')
const { compressors } = await load('hyparquet-compressors/src/index.js')

const { paths, column, value } = JSON.parse(readFileSync(0, 'utf8'))
const found = { columns: {}, filtered: [], lowest: Infinity, highest: -Infinity, count: 0 }
for (const path of paths) {
  const file = await asyncBufferFromFile(path)
  for (const row of await parquetReadObjects({ file, compressors })) {
    for (const [name, cell] of Object.entries(row)) (found.columns[name] ??= []).push(cell)
  }
  const filter = { [column]: { $eq: value } }
  const rows = await parquetQuery({ file, compressors, filter })
  found.filtered.push(...rows.map((row) => row[column]))
  const metadata = await parquetMetadataAsync(file)
  found.count += Number(metadata.num_rows)
  for (const group of metadata.row_groups) {
    const { statistics } = group.columns.find(({ meta_data }) => meta_data.path_in_schema[0] === column).meta_data
    found.lowest = Math.min(found.lowest, statistics.min_value)
    found.highest = Math.max(found.highest, statistics.max_value)
  }
}
const text = JSON.stringify(found, (_, cell) =>
  typeof cell === 'bigint' ? cell.toString() : ArrayBuffer.isView(cell) ? [...cell] : cell)
process.stdout.write(text)
