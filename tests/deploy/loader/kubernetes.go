package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// kinds has the type of each object that may be in deploy/kubernetes.
var kinds = map[string]func() any{
	"v1/ConfigMap":                            func() any { return &core.ConfigMap{} },
	"v1/Namespace":                            func() any { return &core.Namespace{} },
	"v1/PersistentVolumeClaim":                func() any { return &core.PersistentVolumeClaim{} },
	"v1/Secret":                               func() any { return &core.Secret{} },
	"v1/Service":                              func() any { return &core.Service{} },
	"v1/ServiceAccount":                       func() any { return &core.ServiceAccount{} },
	"apps/v1/Deployment":                      func() any { return &apps.Deployment{} },
	"batch/v1/CronJob":                        func() any { return &batch.CronJob{} },
	"batch/v1/Job":                            func() any { return &batch.Job{} },
	"networking.k8s.io/v1/NetworkPolicy":      func() any { return &networking.NetworkPolicy{} },
	"policy/v1/PodDisruptionBudget":           func() any { return &policy.PodDisruptionBudget{} },
	"keda.sh/v1alpha1/ScaledObject":           func() any { return &keda.ScaledObject{} },
	"keda.sh/v1alpha1/TriggerAuthentication":  func() any { return &keda.TriggerAuthentication{} },
	"monitoring.coreos.com/v1/PodMonitor":     func() any { return &monitoring.PodMonitor{} },
	"monitoring.coreos.com/v1/PrometheusRule": func() any { return &monitoring.PrometheusRule{} },
}

// build gives the objects of a kustomization as kustomize writes them.
func build(folder string) ([]any, error) {
	found, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return nil, err
	}
	text, err := found.AsYaml()
	if err != nil {
		return nil, err
	}
	return decodeAll(folder, text)
}

func decodeFiles(names []string) ([]any, error) {
	var all []any
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		found, err := decodeAll(name, text)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// decodeAll gives the documents of a YAML text, each of which its own type holds whole.
func decodeAll(name string, text []byte) ([]any, error) {
	var all []any
	reader := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	defer reader.Close()
	buffer := make([]byte, len(text)+1)
	for number := 1; ; number++ {
		size, err := reader.Read(buffer)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		found, err := decode(buffer[:size])
		if err != nil {
			return nil, fmt.Errorf("%s: document %d: %w", name, number, err)
		}
		all = append(all, found)
	}
}

func decode(document []byte) (any, error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		return nil, err
	}
	made, known := kinds[head.APIVersion+"/"+head.Kind]
	if !known {
		return nil, fmt.Errorf("%s %s: no such kind here", head.APIVersion, head.Kind)
	}
	object := made()
	if err := strictly(document, object); err != nil {
		return nil, fmt.Errorf("%s %s: %w", head.Kind, head.Metadata.Name, err)
	}
	if err := check(object); err != nil {
		return nil, fmt.Errorf("%s %s: %w", head.Kind, head.Metadata.Name, err)
	}
	var plain any
	return plain, yaml.Unmarshal(document, &plain)
}

// strictly reads as the API server does with fieldValidation=Strict: names of fields by their case, no key twice.
func strictly(document []byte, object any) error {
	text, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return err
	}
	faults, err := json.UnmarshalStrict(text, object)
	return errors.Join(append(faults, err)...)
}

// check asks what KEDA's admission webhook asks without a cluster.
func check(object any) error {
	scaled, is := object.(*keda.ScaledObject)
	if !is {
		return nil
	}
	if err := keda.CheckReplicaCountBoundsAreValid(scaled); err != nil {
		return err
	}
	return keda.ValidateTriggers(scaled.Spec.Triggers)
}
