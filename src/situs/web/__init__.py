"""The page and the REST interface of `situs serve`, on one computer for the people who use it.

`schemas` is the contract with clients, `app` the routes, `store` what is held for each client, `work` what is
done on a scan, `security` who may ask, `uploads` how files come in, `server` the process.
"""
