# The server in a container, built from the wheel. Not tested: no container could be built where it was written.
#
#   docker build -t situs .
#   docker run --rm --read-only --tmpfs /tmp:mode=1777,size=2g --cap-drop ALL --security-opt no-new-privileges \
#     -p 127.0.0.1:8080:8080 -v ./token:/run/secrets/situs_token:ro situs
#
# The file `token` holds the token that clients give, at least 16 characters, readable by user 10001.

FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/situs-*.whl)[web,dicom,codecs]" \
  && rm -r /wheels \
  && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin situs
USER 10001
# The file system may be read-only: uploads lie in /tmp until they are read.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TMPDIR=/tmp OMP_NUM_THREADS=1
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["python", "-c", \
  "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health', timeout=4)"]
ENTRYPOINT ["situs", "serve", "--no-browser", "--host", "0.0.0.0", "--port", "8080", "--token-file", "/run/secrets/situs_token"]
