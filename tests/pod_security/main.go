// Command pod-security reads Kubernetes objects in YAML from standard input and evaluates each pod and pod template with the
// code of Kubernetes' Pod Security admission, at level "restricted" of the versions that the chart supports.
//
// It prints each violation. It exits with 1 if there is a violation, an unknown field in a pod, or no pod at all.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// The oldest supported version, and the newest that the evaluator knows.
var versions = []api.Version{api.MajorMinorVersion(1, 30), api.LatestVersion()}

// The paths of the pod template in workloads and in CronJobs.
var templates = [][]string{{"spec", "template"}, {"spec", "jobTemplate", "spec", "template"}}

func main() {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		exit(err)
	}
	pods, violations := 0, 0
	documents := utilyaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			exit(err)
		}
		var content map[string]any
		if err := yaml.Unmarshal(document, &content); err != nil {
			exit(err)
		}
		object := unstructured.Unstructured{Object: content}
		template, err := podTemplate(object)
		if err != nil {
			exit(fmt.Errorf("%s/%s: %w", object.GetKind(), object.GetName(), err))
		}
		if template == nil {
			continue
		}
		pods++
		for _, version := range versions {
			for _, violation := range evaluate(evaluator, version, template) {
				violations++
				fmt.Printf("%s/%s: %s\n", object.GetKind(), object.GetName(), violation)
			}
		}
	}
	fmt.Printf("%d pods, %d violations\n", pods, violations)
	if pods == 0 {
		exit(errors.New("no pod found"))
	}
	if violations > 0 {
		os.Exit(1)
	}
}

// podTemplate returns the pod or the pod template of an object, or nil if it has none.
func podTemplate(object unstructured.Unstructured) (*corev1.PodTemplateSpec, error) {
	if object.IsList() {
		return nil, errors.New("lists are not supported")
	}
	if object.GetKind() == "Pod" {
		return decode(map[string]any{"metadata": object.Object["metadata"], "spec": object.Object["spec"]})
	}
	for _, path := range templates {
		template, found, err := unstructured.NestedMap(object.Object, path...)
		if err != nil || !found {
			continue
		}
		if _, found, _ := unstructured.NestedSlice(template, "spec", "containers"); found {
			return decode(template)
		}
	}
	return nil, nil
}

func decode(content map[string]any) (*corev1.PodTemplateSpec, error) {
	text, err := yaml.Marshal(content)
	if err != nil {
		return nil, err
	}
	template := &corev1.PodTemplateSpec{}
	return template, yaml.UnmarshalStrict(text, template)
}

// evaluate returns a sentence for each violation of the level "restricted".
func evaluate(evaluator policy.Evaluator, version api.Version, template *corev1.PodTemplateSpec) []string {
	level := api.LevelVersion{Level: api.LevelRestricted, Version: version}
	violations := []string{}
	for _, result := range evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec) {
		if !result.Allowed {
			violations = append(violations, fmt.Sprintf("%s: %s (%s)", level, result.ForbiddenReason, result.ForbiddenDetail))
		}
	}
	return violations
}

func exit(err error) {
	fmt.Fprintln(os.Stderr, "pod-security:", err)
	os.Exit(1)
}
