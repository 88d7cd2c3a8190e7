module coracle.dev/demos/tcp-echo-go

go 1.21
