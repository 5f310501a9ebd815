"""The report of a finished run: one document that says what was measured, found, and to be flagged.

What lives here: the words (`summary`), the document as data (`document`, `content`) and its three forms (`html`,
`markdown`, `latex`). What must not: any measure or test, which are in the leaderboard and in the tables of
significance, nor drawing, which is in `bench.figures`. The same folder and the same plugins installed give the same
bytes.
"""
