// What Go's own parser costs on the same page: `expfmt`, which the endpoint picker uses.
//
// In: `parse FILE SECONDS` or `scrape URL COUNT`. Out: one line, the CPU nanoseconds of a page.
// CPU is the whole process': the garbage collector is part of the price.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func main() {
	count := 0
	number, err := strconv.Atoi(os.Args[3])
	check(err)
	var before time.Duration
	switch os.Args[1] {
	case "parse":
		page, err := os.ReadFile(os.Args[2])
		check(err)
		before = cpu()
		for end := time.Now().Add(time.Duration(number) * time.Second); time.Now().Before(end); count++ {
			parse(bytes.NewReader(page))
		}
	case "scrape":
		before = cpu()
		for ; count < number; count++ {
			answer, err := http.Get(os.Args[2])
			check(err)
			parse(answer.Body)
			answer.Body.Close()
		}
	}
	fmt.Println(int64(cpu()-before) / int64(count))
}

func parse(page io.Reader) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(page)
	check(err)
	if families["vllm:num_requests_waiting"] == nil {
		panic("no queue on the page")
	}
}

func cpu() time.Duration {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
