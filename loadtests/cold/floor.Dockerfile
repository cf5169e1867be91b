# The least that a container can do: a static binary of 2 MB that answers with one file.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends busybox-static
RUN mkdir /www && echo floor > /www/index.html

FROM scratch
COPY --from=builder /bin/busybox /bin/busybox
COPY --from=builder /www /www
USER 10001:10001
EXPOSE 8080
# The first process of a container hears only the signals that it asked for.
ENTRYPOINT ["/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; echo begun; /bin/busybox httpd -f -p 8080 -h /www & wait"]
