package main

import (
	"context"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// loadCompose knows no variable but those of envFile: none of the shell that started it.
func loadCompose(file, envFile string, profiles []string) (*types.Project, error) {
	options, err := cli.NewProjectOptions(
		[]string{file},
		cli.WithEnvFiles(envFile),
		cli.WithDotEnv,
		cli.WithProfiles(profiles),
		cli.WithName("awry"),
	)
	if err != nil {
		return nil, err
	}
	return options.LoadProject(context.Background())
}
