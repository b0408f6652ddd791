// Reads deployment files with the readers that will read them in production, strictly, and prints JSON of what they
// understood:
//
//	loader compose FILE ENV_FILE [PROFILE...]   docker-compose.yml, by the loader of Compose v2
//	loader kustomize FOLDER                     a kustomization, by kustomize; each object decoded into its own type
//	loader decode FILE...                       manifests as they are written
//
// A field that a type does not have, a key that stands twice, a kind that is not known: each ends it with status 1 and
// the reason on standard error.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	found, err := run(os.Args[1:])
	if err == nil {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(words []string) (any, error) {
	switch {
	case len(words) >= 3 && words[0] == "compose":
		return loadCompose(words[1], words[2], words[3:])
	case len(words) == 2 && words[0] == "kustomize":
		return build(words[1])
	case len(words) >= 2 && words[0] == "decode":
		return decodeFiles(words[1:])
	}
	return nil, fmt.Errorf("usage: loader compose FILE ENV_FILE [PROFILE...] | kustomize FOLDER | decode FILE...")
}
