package config

import (
	"errors"
	"fmt"
)

// Roles of a process in a deployment of several: see Config.Role.
const (
	RoleAll    = "all"
	RoleFront  = "front"
	RoleWorker = "worker"
)

// parts are the roles in the order in which they are offered.
func parts() []string { return []string{RoleAll, RoleFront, RoleWorker} }

// Fronts reports whether the process serves clients.
func (c *Config) Fronts() bool { return c.Role != RoleWorker }

// Works reports whether the process writes to destinations.
func (c *Config) Works() bool { return c.Role != RoleFront }

// As gives the process another role than the file does, unless role is "". The error is everything that the configuration lacks
// for it.
func (c *Config) As(role string) error {
	if role == "" {
		return nil
	}
	c.Role = role
	k := &checker{decoder: new(decoder)}
	if k.oneOf("role", role, parts()); len(k.problems) == 0 {
		k.role(c)
	}
	var errs []error
	for _, p := range k.problems {
		errs = append(errs, fmt.Errorf("%s: %s", p.Path, p.Text))
	}
	return errors.Join(errs...)
}

// Serving returns what keeps a process of this role from serving: only there it matters.
func (c *Config) Serving() error {
	for i := range c.Mirrors {
		if c.Mirrors[i].Replication.Fronts != nil && c.Fronts() && c.Works() {
			return fmt.Errorf("mirrors[%d].replication.fronts: for role worker: a process that serves clients as well would wait for itself", i)
		}
	}
	return nil
}

// role checks that the process can do what its role asks for.
func (c *checker) role(cfg *Config) {
	targets := 0
	for i := range cfg.Mirrors {
		m, path := &cfg.Mirrors[i], fmt.Sprintf("mirrors[%d]", i)
		targets += len(m.Targets())
		if cfg.Role == RoleFront && m.Destination != nil && m.Replication.OnMiss && m.Events.SQS == "" {
			c.problem(path+".events.sqs", "a front hands what it misses to the workers by this queue: set it, or replication.onMiss: false")
		}
	}
	if cfg.Role == RoleWorker && targets == 0 {
		c.problem("role", "a worker replicates, and no mirror has a destination")
	}
}
