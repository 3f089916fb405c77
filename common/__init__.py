"""What more than one service needs: settings, ledger, archive, pixels, queue."""
