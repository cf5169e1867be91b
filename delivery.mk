# Between a commit and a cluster: what the workflows of .github call, and what works by hand as well.
#
# What comes from outside, a tag's name or an image, is read by the shell, "$$SERVE", out of the environment. In $(SERVE) make would
# call the functions that it names, and the shell would run the rest.
.PHONY: kind carry job registry summary push pull chart tagged page

kind: ## create a kind cluster with the platform, whose gateway is http://127.0.0.1:8080
	kind create cluster --config k8s/kind/cluster.yaml --wait 5m
	$(MAKE) platform
	kubectl apply -f k8s/kind/gateway.yaml

carry: ## bring both images to the nodes of that cluster
	kind load docker-image --name chiffre $(IMG)-serve:$(TAG) $(IMG)-train:$(TAG)

OVERLAY ?= cpu
CONFIG ?= best
export CONFIG OVERLAY
# Of several machines, too: a Job cannot be changed, and those that are left would be another run's.
JOBS = app.kubernetes.io/name=chiffre-train
# Complete or Failed, for which kubectl has no `or`: of all that a Job can be, these two come before this word in the alphabet.
# One that nobody waits for any more is deleted: it would publish its version all the same.
JOB_ENDED = {.status.conditions[?(@.type<"Failure")].type}

job: ## train on the cluster by k8s/overlays/$(OVERLAY) and model/configs/$(CONFIG).yaml, with the image TRAIN=...@sha256:... if given; build/version says which version came of it
	@mkdir -p build/job
	@test -f "k8s/overlays/$$OVERLAY/kustomization.yaml" || { echo "OVERLAY: expected one of k8s/overlays, got $$OVERLAY" >&2; exit 1; }
	@cp "model/configs/$$CONFIG.yaml" build/job/
	@printf '%s\n' 'apiVersion: kustomize.config.k8s.io/v1beta1' 'kind: Kustomization' "resources: [../../k8s/overlays/$$OVERLAY]" \
		"configMapGenerator: [{name: chiffre-configs, namespace: chiffre, behavior: merge, files: [best.yaml=$$CONFIG.yaml]}]" \
		> build/job/kustomization.yaml
	@test -z "$$TRAIN" || printf '%s\n' "images: [{name: chiffre-train, newName: \"$${TRAIN%@*}\", digest: \"$${TRAIN##*@}\"}]" \
		>> build/job/kustomization.yaml
	kubectl kustomize build/job > build/job.yaml
	@test -z "$$TRAIN" || sed -n 's/^ *image: //p' build/job.yaml | grep -qxF -e "$$TRAIN" \
		|| { echo "TRAIN: k8s/overlays/$$OVERLAY brings an image of its own, and would not train with $$TRAIN" >&2; exit 1; }
	kubectl delete job --namespace chiffre --selector $(JOBS)
	kubectl apply -f build/job.yaml
	kubectl wait --namespace chiffre --for jsonpath='$(JOB_ENDED)' --timeout 30m job/chiffre-train 2> build/job.wait \
		|| { cat build/job.wait >&2; grep -q 'timed out waiting' build/job.wait || exit 1; \
			kubectl logs --namespace chiffre --tail 50 job/chiffre-train; kubectl delete job --namespace chiffre --selector $(JOBS); \
			echo "chiffre-train: did not end within 30 minutes, and is deleted" >&2; exit 1; }
	kubectl wait --namespace chiffre --for condition=complete --timeout 0 job/chiffre-train \
		|| { kubectl logs --namespace chiffre --tail 50 job/chiffre-train; exit 1; }
	kubectl logs --namespace chiffre job/chiffre-train | sed -n 's/^published .* version \([0-9]*\), .*/\1/p' > build/version
	@grep -q . build/version || { echo "chiffre-train: its log names no version" >&2; exit 1; }

registry: ## reach the cluster's MLflow at http://127.0.0.1:5000, until it is stopped
	@mkdir -p build
	nohup kubectl port-forward --namespace chiffre service/mlflow 5000 > build/registry.log 2>&1 &
	curl --fail --silent --show-error --output build/registry.health --retry 30 --retry-delay 1 --retry-connrefused --max-time 60 \
		http://127.0.0.1:5000/health

summary: ## put the summaries of load test, roll-out and drill together in build/summary.md
	@mkdir -p build
	cat $(wildcard build/load/summary.md build/rollout/summary.md build/drill/summary.md) /dev/null > build/summary.md

push: ## push both images with docker; build/pushed says which they are by their digests
	@mkdir -p build && rm -f build/pushed
	for target in serve train; do \
		docker push $(IMG)-$$target:$(TAG) || exit; \
		digest=$$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' $(IMG)-$$target:$(TAG)) || exit; \
		printf '%s\n' "$$target=$(IMG)-$$target@$$digest" "$$target-digest=$$digest" >> build/pushed; \
	done

pull: ## take SERVE=...@sha256:... and TRAIN=...@sha256:... for the images $(IMG)-serve:$(TAG) and $(IMG)-train:$(TAG)
	docker pull "$$SERVE"
	docker tag "$$SERVE" $(IMG)-serve:$(TAG)
	docker pull "$$TRAIN"
	docker tag "$$TRAIN" $(IMG)-train:$(TAG)

chart: ## push the chart to OCI=oci://...; build/pushed says which it is by its digest
	@mkdir -p build
	helm package helm/chiffre --destination build
	helm push build/chiffre-$(VERSION).tgz "$$OCI" > build/chart.log 2>&1 || { cat build/chart.log; exit 1; }
	digest=$$(sed -n 's/^Digest: //p' build/chart.log) && printf '%s\n' "chart=$${OCI#oci://}/chiffre@$$digest" > build/pushed
	@grep -q sha256: build/pushed || { cat build/chart.log; exit 1; }

tagged: ## fail unless NAME is the tag of this version
	@test "$$NAME" = 'v$(VERSION)' || { echo "$$NAME: expected v$(VERSION), the version in pyproject.toml" >&2; exit 1; }
	@echo version=$(VERSION)

# Cloud Run sends SIGTERM and waits 10 s. Images of GHCR come by the repository of Artifact Registry in docs/deploy-cloud-run.md.
PAGE_ARGS = --model_dir=/mnt/models,--http_port=8080,--enable_grpc=false,--drain_seconds=0,--grace_seconds=8

page: ## serve SERVE=...@sha256:... on Cloud Run with the bundle in BUCKET; PROJECT, REGION, PAGE_ACCOUNT
	image=$$SERVE; case "$$image" in ghcr.io/*) image=$$REGION-docker.pkg.dev/$$PROJECT/ghcr/$${image#ghcr.io/} ;; esac; \
	gcloud run deploy chiffre --image "$$image" --project "$$PROJECT" --region "$$REGION" --service-account "$$PAGE_ACCOUNT" \
		--port 8080 --args=$(PAGE_ARGS) --execution-environment gen2 \
		--add-volume "name=bundle,type=cloud-storage,bucket=$$BUCKET,readonly=true" --add-volume-mount volume=bundle,mount-path=/mnt/models \
		--startup-probe httpGet.path=/v2/models/digits/ready,httpGet.port=8080,periodSeconds=1,failureThreshold=60 \
		--cpu 1 --memory 512Mi --cpu-boost --concurrency 80 --min-instances 0 --max-instances 3 --timeout 60 \
		--allow-unauthenticated --quiet
