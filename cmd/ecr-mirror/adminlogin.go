package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

// Where commands have the login for the admin port from, as USER:PASSWORD: never from the command line, which everybody on the host
// can see.
const (
	loginVariable     = "ECR_MIRROR_LOGIN"
	loginFileVariable = "ECR_MIRROR_LOGIN_FILE" // a file; its first line
)

// logIn adds the login to a request if the environment has one. It leaves this host never.
func logIn(req *http.Request, getenv func(string) string) error {
	login, file := getenv(loginVariable), getenv(loginFileVariable)
	if login == "" && file == "" {
		return nil
	}
	if host := req.URL.Hostname(); host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("%s is not a loopback address: a login is not sent there over plain HTTP", host)
	}
	if login == "" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("%s: %w", loginFileVariable, err)
		}
		defer f.Close()
		line, err := bufio.NewReader(io.LimitReader(f, 4<<10)).ReadString('\n')
		if err != nil && err != io.EOF {
			return fmt.Errorf("%s: %w", loginFileVariable, err)
		}
		login = strings.TrimRight(line, "\r\n")
	}
	user, password, ok := strings.Cut(login, ":")
	if !ok || user == "" {
		return errors.New("the login for the admin port is not USER:PASSWORD")
	}
	req.SetBasicAuth(user, password)
	return nil
}
