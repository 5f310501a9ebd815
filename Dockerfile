# The README's commands in a container; the image holds the project and no photo.
#
#     docker build -t cloakbench .
#     docker run --rm -v cloakbench:/keep cloakbench
#     docker run --rm -v cloakbench:/keep cloakbench fetch --for results/headline.toml
#     docker run --rm -v cloakbench:/keep cloakbench reproduce headline --quick --out /keep/runs/headline-quick
#
# On the volume /keep stay photos and weights (/keep/data), computed artefacts (/keep/store) and what --out names.
FROM python:3.11-slim
RUN useradd --create-home bench && mkdir /keep && chown bench /keep
WORKDIR /home/bench/cloakbench
COPY --chown=bench . .
RUN pip install --no-cache-dir --constraint constraints.txt --editable .
USER bench
ENV CLOAKBENCH_DATA=/keep/data CLOAKBENCH_STORE=/keep/store
VOLUME /keep
ENTRYPOINT ["bench"]
CMD ["run", "--attack", "fawkes", "--defense", "puface", "--out", "/keep/runs/first"]
